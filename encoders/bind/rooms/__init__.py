"""Rooms that are drawn: pairs of a colour and a depth picture, of furniture with names."""
