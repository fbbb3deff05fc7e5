"""DRA drivers beside the chips' that keep no record: what a container gets follows from the allocation alone."""
