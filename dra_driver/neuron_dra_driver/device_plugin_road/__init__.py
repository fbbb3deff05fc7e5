"""The road of device plugins: what the kubelet or AWS's scheduler extension gave becomes a prepared claim, too."""
