"""What a prepared claim is on the node's disk: folders, CDI files, the runtime's tree."""
