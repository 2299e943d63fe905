"""Fetch files over http, https and from file: URLs, so that no cut and no crash costs a byte twice."""

from builder.fetch.address import Address, resolve
from builder.fetch.client import Limits
from builder.fetch.remembered import Remembered
from builder.fetch.spool import Validators
from builder.fetch.web import Fetched, Web

__all__ = ["Address", "Fetched", "Limits", "Remembered", "Validators", "Web", "resolve"]
