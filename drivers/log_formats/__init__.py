"""The formats that drivers/log.py reads, one module each; chosen by content in sniff.py."""
