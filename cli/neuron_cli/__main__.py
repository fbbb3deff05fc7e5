"""`python -m neuron_cli`, for where the console script is not on the PATH."""

from neuron_cli.main import app

app(prog_name="neuron-sim")
