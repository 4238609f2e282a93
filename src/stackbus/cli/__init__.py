"""The doors of the command line: parse, call one room, print. They decide nothing."""
