"""What ``nccom-test`` consists of: flags to a plan, plan and model to rows, rows to a table; sockets at the rim."""
