"""The page for people at `/`: what `emi sandbox status` shows, in a browser; it changes nothing, asks nobody else.

It is for a request that nobody signed and that wants HTML; all others are the services'. The document is built as a
tree and serialized, so that whatever a tag or a name holds is shown as text. No script, no address but our own page's,
and a policy that forbids the browser any.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from builder.sandbox.tables import Cell, Column, Table, show
from builder.sandbox.wire import Answer, Request

_STYLE = """
:root { color-scheme: light dark; --line: #d8dee4; --soft: #59636e; --head: #f6f8fa; --good: #1a7f37; --bad: #cf222e;
  --wait: #9a6700; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3d444d; --soft: #9198a1; --head: #151b23; --good: #3fb950; --bad: #f85149; --wait: #d29922; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; padding: 0 1.5rem; max-width: 90rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
p, h2 small { color: var(--soft); font-weight: normal; }
nav a { margin-right: 1rem; color: inherit; } nav b { font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { text-align: left; padding: .35rem .7rem; border-top: 1px solid var(--line); vertical-align: top;
  overflow-wrap: anywhere; }
th { background: var(--head); border-top: 0; white-space: nowrap; }
td.bytes, td.time, td.state { white-space: nowrap; font-variant-numeric: tabular-nums; } td.text { min-width: 5rem; }
.good { color: var(--good); } .bad { color: var(--bad); } .wait { color: var(--wait); }
"""
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_GOOD = {"available", "completed", "running", "in-use", "200", "201", "202", "204", "206"}
_BAD = {"error", "failed", "deleted"}


def wanted(request: Request) -> bool:
    """Say whether the request is a browser's, for this page, and not one to a service."""
    return (
        request.path == "/"
        and request.method in ("GET", "HEAD")
        and "text/html" in (request.header("Accept") or "")
        and request.header("Authorization") is None
        and not request.raw_query
    )


def answer(tables: Sequence[Table], *, place: str, address: str) -> Answer:
    """Return the page; `place` is the sandbox's directory."""
    return Answer(headers=_HEADERS, body=b"<!DOCTYPE html>\n" + tostring(_page(tables, place, address), method="html"))


def _page(tables: Sequence[Table], place: str, address: str) -> Element:
    root = Element("html", lang="en")
    head, body = SubElement(root, "head"), SubElement(root, "body")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    SubElement(head, "link", rel="icon", href="data:,")
    _text(head, "title", f"emi sandbox {address}")
    _text(head, "style", _STYLE)
    _text(body, "h1", "emi sandbox")
    shown = time.strftime("%Y-%m-%d %H:%M:%S")
    _text(body, "p", f"An emulated cloud at {address}, in {place}; as it was at {shown}. Reload for the present.")
    links = SubElement(body, "nav")
    for table in tables:
        link = SubElement(links, "a", href=f"#{_anchor(table)}")
        link.text = f"{table.name} "
        _text(link, "b", str(table.total))
    for table in tables:
        _section(body, table)
    return root


def _section(body: Element, table: Table) -> None:
    heading = _text(body, "h2", f"{table.name} ", id=_anchor(table))
    _text(heading, "small", table.about)
    if not table.rows:
        return
    inside = SubElement(SubElement(body, "div", {"class": "wide"}), "table")
    first = SubElement(SubElement(inside, "thead"), "tr")
    for column in table.columns:
        _text(first, "th", column.name)
    rows = SubElement(inside, "tbody")
    for row in table.rows:
        line = SubElement(rows, "tr")
        for column, cell in zip(table.columns, row, strict=True):
            _text(line, "td", show(column.kind, cell), **{"class": f"{column.kind} {_mood(column, cell)}".strip()})


def _mood(column: Column, cell: Cell) -> str:
    words: Iterable[str] = str(cell).split()
    if column.kind != "state":
        return ""
    if any(word in _BAD or (word.isdecimal() and int(word) >= 400) for word in words):
        return "bad"
    return "good" if any(word in _GOOD for word in words) else "wait"


def _anchor(table: Table) -> str:
    return table.name.replace(" ", "-")


def _text(parent: Element, tag: str, text: str, **attributes: str) -> Element:
    made = SubElement(parent, tag, attributes)
    made.text = text
    return made
