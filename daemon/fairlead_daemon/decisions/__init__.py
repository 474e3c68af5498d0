"""Pure decisions of the daemon package: values in, values out."""
