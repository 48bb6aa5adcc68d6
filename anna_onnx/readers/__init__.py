"""Spectra files of any flavour."""
