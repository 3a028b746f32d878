"""Any network as a graph of standard modules under its own names: the normal form that every transform works on."""
