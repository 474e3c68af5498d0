"""Pure decisions of the console: values in, values out."""
