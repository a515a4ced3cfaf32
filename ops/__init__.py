"""The operator's floor: starts, supervises and examines the processes of one installation."""
