"""What Helm runs around the operator's life: Jobs before an upgrade, before and after an uninstall.

Each can be run again after it failed half-way, and says in its log what it does and what it waits for.
"""
