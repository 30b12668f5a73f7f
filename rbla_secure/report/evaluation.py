"""An evaluation for people: a table, heat maps in one self-contained page, and a summary in plain words."""

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rbla_secure.evaluation.defences import CONFIGURED, EvaluatedDefence
from rbla_secure.evaluation.poisoning.registry import BACKDOORS, AttackName
from rbla_secure.evaluation.suite import MAX_LOSS, MAX_SUCCESS, Cell, Summed, summed, worst
from rbla_secure.robustness.registry import MEASURED

Table = Mapping[tuple[str, AttackName], Summed]


def markdown(rows: Sequence[EvaluatedDefence], cells: Sequence[Cell]) -> str:
    """Accuracy and, for attacks with a trigger, how often it works, in per cent; the last column is the worst attack."""
    found = summed(cells)
    attacks = _attacks(found)
    lines = [
        "| defence | server sees | " + " | ".join(attacks) + " | worst attack |",
        "|---" * (len(attacks) + 3) + "|",
    ]
    for row in rows:
        name = row.name.replace("|", "\\|")
        if row.refused:
            lines.append(f"| {name} | {row.view} | refused: {row.refused} |" + " |" * len(attacks))
            continue
        texts = [_text(found.get((row.name, attack)), attack) for attack in attacks]
        lines.append(f"| {name} | {row.view} | " + " | ".join(texts) + f" | {_worst(found, row.name)} |")
    return "\n".join(lines) + "\n"


def in_plain_words(rows: Sequence[EvaluatedDefence], cells: Sequence[Cell], *, share: float) -> list[str]:
    """Say which attacks the configuration withstands, which not, and which other defences withstand those."""
    found = summed(cells)
    own = {attack: each for (name, attack), each in found.items() if name == CONFIGURED}
    if not own:
        reason = next((row.refused for row in rows if row.name == CONFIGURED), "it was not run")
        return [f"This configuration was not evaluated: {reason}."]
    attacked = {attack: each for attack, each in own.items() if attack is not AttackName.NONE}
    withstood = [attack for attack, each in attacked.items() if each.withstood(attack)]
    failed = [attack for attack, each in attacked.items() if each.failed(attack)]
    measure = (
        f"With {share:.0%} of the clients attacking, at most {MAX_LOSS:.0%} of accuracy lost and a trigger that works for at "
        f"most {MAX_SUCCESS:.0%} counts as withstood."
    )
    lines = [measure, "Withstood: " + (", ".join(withstood) or "nothing") + "."]
    lines += [f"Not withstood: {attack}: {_told(attacked[attack], attack)}." for attack in failed]
    lines += [
        f"Not tested, so neither withstood nor not: {attack}: {each.not_tested}."
        for attack, each in attacked.items()
        if each.not_tested
    ]
    better = _better(rows, found, failed)
    if failed and better:
        lines.append(f"Would withstand all of these: {', '.join(better)}.")
    elif failed:
        lines.append("None of the defences tried here withstands all of these.")
    lines.append(
        "What was not tried is not covered: attackers who know more, are more, or are patient. The adaptive attack is one "
        "such attempt, not the best one possible: it adapts to whom a rule rejects, and sends medians and trimmed means, which "
        "reject nobody, the whole backdoor."
    )
    lines.append(MEASURED)
    return lines


def document(rows: Sequence[EvaluatedDefence], cells: Sequence[Cell], *, share: float) -> str:
    """The whole evaluation as Markdown: words first, then the table."""
    return "\n\n".join([*in_plain_words(rows, cells, share=share), markdown(rows, cells)])


def on_terminal(rows: Sequence[EvaluatedDefence], cells: Sequence[Cell], *, share: float) -> list[str]:
    """The whole evaluation for a terminal: the table first, then the words."""
    return [markdown(rows, cells), *in_plain_words(rows, cells, share=share)]


def as_object(
    rows: Sequence[EvaluatedDefence], cells: Sequence[Cell], *, folder: Path, share: float
) -> dict[str, object]:
    """The whole evaluation as one JSON object."""
    return {
        "folder": str(folder),
        "cells": [cell.model_dump() for cell in cells],
        "summary": in_plain_words(rows, cells, share=share),
    }


def page(rows: Sequence[EvaluatedDefence], cells: Sequence[Cell], *, share: float) -> str:
    """Return one self-contained HTML page: summary, heat maps of lost accuracy and of trigger success."""
    found = summed(cells)
    words = "".join(f"<p>{html.escape(line)}</p>" for line in in_plain_words(rows, cells, share=share))
    names = [row.name for row in rows if not row.refused]
    losses = _heat_map(names, found, _attacks(found), lambda each: max(0.0, each.loss), full=0.3)
    triggers = [attack for attack in _attacks(found) if attack in BACKDOORS]
    successes = _heat_map(names, found, triggers, lambda each: each.success, full=1.0)
    refused = "".join(
        f"<li>{html.escape(row.name)}: {html.escape(row.refused)}</li>" for row in rows if row.refused
    )
    return _PAGE.format(words=words, losses=losses, successes=successes, refused=refused)


def _attacks(found: Table) -> list[AttackName]:
    there = {attack for _, attack in found}
    return [attack for attack in AttackName if attack in there]


def _text(each: Summed | None, attack: AttackName) -> str:
    if each is None:
        return "-"
    if each.not_tested:
        return "not tested"
    if attack in BACKDOORS or attack is AttackName.NONE:
        return f"{each.accuracy * 100:.1f} / {each.success * 100:.0f}"
    return f"{each.accuracy * 100:.1f}"


def _told(each: Summed, attack: AttackName) -> str:
    told = f"{each.loss * 100:.1f} points of accuracy lost"
    if attack not in BACKDOORS:
        return told
    most = f" (up to {each.highest:.0%})" if each.highest > each.success else ""
    return f"{told}, and the trigger works for {each.success:.0%}{most}"


def _worst(found: Table, name: str) -> str:
    return worst({attack: each for (row, attack), each in found.items() if row == name})


def _better(rows: Sequence[EvaluatedDefence], found: Table, failed: Sequence[AttackName]) -> list[str]:
    """Return the rows that withstand every attack tried; none if the configuration failed none."""
    better = []
    for row in rows:
        own = {attack: each for (name, attack), each in found.items() if name == row.name}
        if row.name != CONFIGURED and own and all(each.withstood(attack) for attack, each in own.items()):
            better.append(row.name)
    return better if failed else []


def _heat_map(
    names: Sequence[str],
    found: Table,
    attacks: Sequence[AttackName],
    value: Callable[[Summed], float],
    *,
    full: float,
) -> str:
    head = "".join(f"<th>{html.escape(attack)}</th>" for attack in attacks)
    body = ""
    for name in names:
        body += f"<tr><th>{html.escape(name)}</th>"
        for attack in attacks:
            each = found.get((name, attack))
            body += _tile(each, value(each) if each else 0.0, full)
        body += "</tr>"
    return f"<table><tr><th></th>{head}</tr>{body}</table>"


def _tile(each: Summed | None, value: float, full: float) -> str:
    if each is None:
        return "<td></td>"
    if each.not_tested:
        return f'<td class="refused" title="{html.escape(each.not_tested)}">not tested</td>'
    # From white over orange to red; the number is shown too, so no reader depends on color.
    part = min(1.0, value / full)
    color = f"hsl({30 - 30 * part:.0f} 90% {100 - 50 * part:.0f}%)"
    title = f"accuracy {each.accuracy:.3f}, trigger {each.success:.3f}"
    return f'<td style="background:{color}" title="{title}">{value * 100:.0f}</td>'


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>rbla-secure: evaluation</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1a1a1a }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
th {{ font-weight: 500; text-align: left; padding: .3rem .5rem; font-size: 13px }}
td {{ padding: .3rem .5rem; text-align: right; border: 1px solid #fff; min-width: 2.5rem }}
td.refused {{ background: #e8eef5; font-size: 12px; text-align: center }}
</style></head><body>
<h1>What this configuration withstands</h1>
{words}
<h2>Accuracy lost, in points</h2>
{losses}
<h2>How often the trigger of a backdoor works, in per cent</h2>
{successes}
<h2>Refused before anything was trained</h2>
<ul>{refused}</ul>
</body></html>
"""
