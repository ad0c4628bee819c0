"""Applications: what the toolbox is for, each a command `treesearch apply NAME`."""
