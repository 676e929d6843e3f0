"""`python -m vae_aug.cli` is `vae-aug`."""

from vae_aug.cli.entry import app

app(prog_name="vae-aug")
