"""Verbs on images and clouds; knows no recipe and no journal."""
