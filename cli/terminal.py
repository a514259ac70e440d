"""What commands say to whoever typed them."""

from functools import partial

from rich.console import Console

console = Console()
say = partial(console.print, highlight=False, soft_wrap=True)  # paths and commands stay in one piece, to be copied
