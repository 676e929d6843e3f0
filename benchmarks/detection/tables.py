"""Tables and sentences of a report, made from what `report.json` holds and from nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.detection.inference import bound_deviation, detectable, seeds_needed
from benchmarks.detection.metrics import METRICS, PATIENT_METRICS
from vae_aug.words import make_markdown_table

_AGAINST_US = ("harms", "alike", "unknown", "helps")
"""Kinds of a verdict, the least welcome first."""

_PHRASES = {
    "harms": "is worse than",
    "alike": "makes no relevant difference to",
    "unknown": "is not known to differ from",
    "helps": "is better than",
}
_SENTENCES = 3

Values = Mapping[str, Any]


def write_headline(report: Values) -> str:
    """Say the result in words, in one line: what speaks against a VAE first."""
    entries = [
        (name, entry) for name, test in report["tests"].items() for entry in test["differences"]
    ]
    primary = [pair for pair in entries if pair[1]["primary"]]
    if report["interim"]:
        sentences = [
            f"Interim, {report['done']} of {report['plan']['seeds']} planned seeds: "
            "there is no verdict yet.",
            *(
                f"On {name}, {_format_less(entry)}: {_format_points(entry['metrics']['mAP50'])}."
                for name, entry in primary
            ),
        ]
        return " ".join(sentences)
    told = [pair for pair in entries if pair[1]["primary"] or pair[1]["rivalry"]] or entries
    if not told:
        return "One arm alone was run, so there is nothing to compare."
    told.sort(key=lambda pair: (_rank(pair[1]), not pair[1]["primary"]))
    shown = told[:_SENTENCES]
    if primary and primary[0] not in shown:
        shown[-1] = primary[0]
    sentences = [_write_sentence(*pair) for pair in shown]
    if len(told) > len(shown):
        sentences.append(f"{len(told) - len(shown)} more comparisons are below.")
    return " ".join(sentences)


def _rank(entry: Values) -> int:
    return _AGAINST_US.index(entry["verdict"]["kind"])


def _write_sentence(test: str, entry: Values) -> str:
    verdict, values = entry["verdict"], entry["metrics"]["mAP50"]
    _, separator, rest = verdict["text"].partition("; ")
    kind = " (the primary comparison)" if entry["primary"] else ""
    return (
        f"On {test}{kind}, `{entry['arm']}` {_PHRASES[verdict['kind']]} `{entry['base']}`: "
        f"{_format_points(values)}{separator}{rest}."
    )


def _format_less(entry: Values) -> str:
    return f"`{entry['arm']}` less `{entry['base']}`"


def _format_points(values: Values) -> str:
    """Write a difference with its interval over seeds, in words."""
    text, seeds = f"{100 * values['mean']:+.1f} points of mAP50", len(values["seeds"])
    if values["low"] is None:
        return f"{text} (one seed)"
    low, high = (100 * values[key] for key in ("low", "high"))
    return f"{text} (95% over {seeds} seeds: {low:+.1f} to {high:+.1f})"


def _format_ends(values: Values, *, points: bool) -> str:
    if values["low"] is None:
        return ""
    ends = (values["low"], values["high"])
    low, high = (f"{100 * v:+.1f}" if points else f"{v:.3f}" for v in ends)
    return f" ({low} to {high})"


def _format_estimate(values: Values) -> str:
    if values["mean"] is None:
        return "none"
    return f"{values['mean']:.3f}{_format_ends(values, points=False)}"


def _format_difference(values: Values) -> str:
    return f"{100 * values['mean']:+.1f}{_format_ends(values, points=True)}"


def _format_p(p: float | None) -> str:
    return "" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def _count(number: float, noun: str) -> str:
    return f"{number:,.0f} {noun}{'' if round(number) == 1 else 's'}"


def format_arms(test: Values) -> str:
    """Write the table of arms: seeds, and mAP with its interval over seeds."""
    return make_markdown_table(
        ["arm", "seeds", *METRICS[:2]],
        (
            [f"`{name}`", str(len(arm["seeds"]))]
            + [_format_estimate(arm["metrics"][metric]) for metric in METRICS[:2]]
            for name, arm in test["arms"].items()
        ),
    )


def format_differences(test: Values) -> str:
    """Write the table of differences of mAP50, in points."""
    head = ["arm", "less", "seeds", "difference", "over seeds and patients", "p", "Holm", "verdict"]
    return make_markdown_table(head, (_list_cells(entry) for entry in test["differences"]))


def _list_cells(entry: Values) -> list[str]:
    values = entry["metrics"]["mAP50"]
    both = values["both"]
    verdict = entry["verdict"]["text"] if entry["verdict"] else "interim"
    return [
        f"`{entry['arm']}`" + (" (primary)" if entry["primary"] else ""),
        f"`{entry['base']}`",
        str(len(values["seeds"])),
        _format_difference(values),
        f"{100 * both[0]:+.1f} to {100 * both[1]:+.1f}" if both else "",
        _format_p(values["p"]),
        _format_p(entry["holm"]),
        verdict,
    ]


def format_sensitivity(test: Values) -> str:
    """Write the table of sensitivities: per patient, and over all boxes."""
    metrics = (*PATIENT_METRICS, *METRICS[2:])
    names = [metric.replace("sensitivity at", "sensitivity over boxes at") for metric in metrics]
    return make_markdown_table(
        ["arm", *names],
        (
            [f"`{name}`", *(_format_estimate(arm["metrics"][metric]) for metric in metrics)]
            for name, arm in test["arms"].items()
        ),
    )


def format_mixed(test: Values) -> str:
    """Write the mixed model: a sentence and its table."""
    model = test["mixed_model"]
    if model is None:
        return "There is no mixed model: it needs two arms and two seeds that all arms have."
    rows = (
        [f"`{row['arm']}`", f"`{row['base']}`", _format_difference(row), _format_p(row["p"])]
        for row in model["differences"]
    )
    left = ", ".join(f"{count} of `{arm}`" for arm, count in model["left_out"].items())
    return (
        f"Fitted to the {len(model['seeds'])} seeds that all arms have"
        + (f" (runs of other seeds are left out: {left})" if left else "")
        + f". Standard deviation between seeds {100 * model['between']:.1f} points, residual "
        f"{100 * model['residual']:.1f}; {model['degrees']} degrees of freedom.\n\n"
        + make_markdown_table(["arm", "less", "difference", "p, not adjusted"], rows)
    )


def format_power(test: Values, report: Values) -> str:
    """Say what the deviation of the plan's difference, or the last, means for the seeds."""
    entry = _find_main(test, report)
    deviation = entry and entry["metrics"]["mAP50"]["deviation"]
    if not deviation:
        return "One seed says nothing of the deviation of a difference."
    seeds = len(entry["metrics"]["mAP50"]["seeds"])
    low, high = (100 * end for end in bound_deviation(deviation, seeds))
    return (
        f"The differences {_format_less(entry)} have a standard deviation of {100 * deviation:.1f} "
        f"points (95%: {low:.1f} to {high:.1f}). At a power of 80%, {seeds} seeds find "
        f"{100 * detectable(deviation, seeds):.1f} points; {100 * report['margin']:g} points take "
        f"{seeds_needed(deviation, report['margin'])} seeds."
    )


def _find_main(test: Values, report: Values) -> Values | None:
    """Find the comparison of the plan, or else the last, which is of the most elaborate arm."""
    plan, entries = report["plan"], test["differences"]
    pair = plan and (plan["arm"], plan["against"])
    last = entries[-1] if entries else None
    return next((e for e in entries if (e["arm"], e["base"]) == pair), last)


def format_corruptions(summary: Values) -> str:
    """Write the table of P, mPC and rPC."""
    head = ["arm", "restored by", "seeds", "P", "mPC", "rPC"]
    head += [f"mPC less `{summary['base']}`, points", "p", "Holm"]
    rows = []
    for row in summary["rows"]:
        difference = row["difference"]
        cells = [f"`{row['arm']}`", row["restorer"] or "nothing", str(len(row["seeds"]))]
        cells += [_format_estimate(row[key]) for key in ("P", "mPC", "rPC")]
        if difference:
            cells += [_format_difference(difference)]
            cells += [_format_p(difference[key]) for key in ("p", "holm")]
        rows.append(cells if difference else [*cells, "", "", ""])
    return make_markdown_table(head, rows)


def format_kinds(summary: Values) -> str:
    """Write the table of mAP50 under each corruption, averaged over its strengths."""
    kinds = list(dict.fromkeys(kind for row in summary["rows"] for kind in row["by"]))
    return make_markdown_table(
        ["arm", "restored by", *kinds],
        (
            [f"`{row['arm']}`", row["restorer"] or "nothing"]
            + [f"{row['by'][kind]:.3f}" if kind in row["by"] else "" for kind in kinds]
            for row in summary["rows"]
        ),
    )


def format_markdown(report: Values) -> str:
    """Write the report, the result in words first."""
    return "\n\n".join([report["headline"], *_write_parts(report)]) + "\n"


def _write_parts(report: Values) -> Iterator[str]:
    if report["plan"]:
        yield _describe_plan(report)
    for name, test in report["tests"].items():
        arms = test["arms"].values()
        images, groups = (
            sum(arm[key] for arm in arms) / len(arms)
            for key in ("training_images", "training_groups")
        )
        noun = "patient" if report["has_patients"] else "image"
        yield f"## {name}"
        yield (
            f"Trained on {_count(images, 'image')} of {_count(groups, noun)}, tested on "
            f"{_count(test['images'], 'image')} (both on average over runs); "
            f"{_count(test['patients'], noun)} were tested in all. Means, with 95% over seeds."
        )
        yield format_arms(test)
        yield "### Differences of mAP50, in points"
        yield format_differences(test)
        yield format_power(test, report)
        yield "### Mixed model"
        yield format_mixed(test)
        yield "### Share of true boxes found at 1 and 4 false positives an image"
        yield format_sensitivity(test)
        if name in report["corruptions"]:
            yield "### Under noise and artefacts (mAP50)"
            yield format_corruptions(report["corruptions"][name])
            yield format_kinds(report["corruptions"][name])
    yield "## How it was measured"
    yield report["method"]
    if not report["has_patients"]:
        yield "The set names no patients: images count as independent, which they may not be."
    yield f"A run took {report['seconds']:.0f} seconds on average."


def _describe_plan(report: Values) -> str:
    plan = report["plan"]
    return (
        f"{report['done']} of {plan['seeds']} planned seeds. The primary comparison, written down "
        f"before the runs, is `{plan['arm']}` less `{plan['against']}` on {plan['test']}; all "
        "others are secondary."
        + (" Until all seeds are there, no p and no verdict is printed." * report["interim"])
    )


def list_figures(report: Values) -> tuple[dict[str, str], dict[str, str]]:
    """List what a page may print of a report: what it must, and what it may leave out.

    Returns:
        Results in words and tables by name: `primary`, the headline; `table`, `sensitivity`,
        `mixed` and, if there is any, `corruptions`, of all tests. Single values: `seeds`,
        `difference`, `deviation` of the primary comparison, or the last; `seconds`, of a run.
    """
    required = {"primary": report["headline"]}
    sections = {
        "table": lambda test: f"{format_arms(test)}\n\n{format_differences(test)}",
        "sensitivity": format_sensitivity,
        "mixed": format_mixed,
    }
    for key, write in sections.items():
        required[key] = _join_tests({n: write(test) for n, test in report["tests"].items()})
    if report["corruptions"]:
        required["corruptions"] = _join_tests(
            {name: format_corruptions(each) for name, each in report["corruptions"].items()}
        )
    optional = {"seconds": f"{report['seconds']:.0f}"}
    tests, plan = report["tests"], report["plan"]
    name = plan["test"] if plan and plan["test"] in tests else next(iter(tests))
    if entry := _find_main(tests[name], report):
        values = entry["metrics"]["mAP50"]
        optional |= {"seeds": str(len(values["seeds"])), "difference": _format_difference(values)}
        if values["deviation"] is not None:
            optional["deviation"] = f"{100 * values['deviation']:.1f}"
    return required, optional


def _join_tests(texts: Mapping[str, str]) -> str:
    """Put the tables of several tests below each other, each under the test's name."""
    return "\n\n".join(f"Test: {name}.\n\n{text}" for name, text in texts.items())
