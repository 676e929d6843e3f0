"""What an audit of membership found: attacks, controls, a verdict, and what it may have missed."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from vae_aug.evaluate.attacked import Attacked
from vae_aug.evaluate.lira import FALSE_POSITIVES, LEVEL, POWER, Attack, Power
from vae_aug.evaluate.patient_scores import PRIMARY
from vae_aug.json_values import make_json
from vae_aug.words import plural

_CAUGHT = ("overfitted", "canaries")
_ENOUGH_PATIENTS = 30
CHECKPOINT, START = "checkpoint", "start"


@dataclasses.dataclass(frozen=True)
class Membership:
    """What `audit_membership` found. It names no patient, no image and no folder.

    Attributes:
        leaks: True for signs of a leak, False for none, None if the attack could not tell.
        verdict: One sentence or two.
        notes: What has to be known beside it; sentences.
        attacks: On the recipe's networks and on the checkpoint, of each score.
        controls: On networks and planted patients that have to be found, or must not be.
        power: Which leak the primary attack on the networks could have missed.
        patients: For each patient, in the order of their sorted hashes, by how many standard
            deviations a network with it scores it higher; of the primary score, shrunk.
        settings: Everything else that is needed to understand it; JSON values.
    """

    leaks: bool | None
    verdict: str
    notes: tuple[str, ...]
    attacks: tuple[Attack, ...]
    controls: tuple[Attack, ...]
    power: Power
    patients: tuple[float, ...]
    settings: Mapping[str, Any]

    def to_json(self) -> str:
        """Return the report as a JSON document."""
        return json.dumps(make_json(self), indent=1, allow_nan=False) + "\n"

    def tabulate(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Return headings and rows of text, a row for each attack and control."""
        headings = ("target", "score", "members,\nothers", "AUC [95%]", "found [95%], %", "p")
        rows = tuple(
            (
                a.target,
                a.score,
                f"{a.members}, {a.others}",
                f"{a.auc:.2f} [{a.auc_low:.2f}, {a.auc_high:.2f}]",
                f"{100 * a.found:.0f} [{100 * a.found_low:.0f}, {100 * a.found_high:.0f}]",
                f"{a.p_value:.2g}",
            )
            for a in (*self.attacks, *self.controls)
        )
        return headings, rows


def judge(
    attacks: Sequence[Attack], controls: Sequence[Attack], power: Power
) -> tuple[bool | None, str]:
    """Say in a sentence whether membership leaks, by the primary score.

    An attack is a sign if its chance is below `LEVEL`, divided by the number of such attacks. That
    on a checkpoint is none if `start`, which was trained on nobody, is caught with its members.

    Args:
        attacks: On the networks and perhaps a checkpoint, of all scores.
        controls: On `overfitted`, `canaries` and, with a checkpoint, `start`.
        power: Of the attack on the networks.

    Returns:
        True, False, or None if the attack could not tell; and the sentence.
    """
    primary = [attack for attack in attacks if attack.score == PRIMARY]
    control = {one.target: one for one in controls if one.score == PRIMARY}
    signs = [attack for attack in primary if attack.p_value < LEVEL / len(primary)]
    blind = [name for name in _CAUGHT if control[name].p_value >= LEVEL]
    if START in control and control[START].p_value < LEVEL:
        signs = [attack for attack in signs if attack.target != CHECKPOINT]
    if signs:
        worst = max(signs, key=lambda attack: attack.auc)
        return True, (
            f"Membership leaks: of the {worst.target}, members are ranked above others with a "
            f"chance of {worst.auc:.2f} [{worst.auc_low:.2f}, {worst.auc_high:.2f}], and "
            f"{worst.found:.0%} of them are found at {FALSE_POSITIVES:.0%} false positives."
            + (f" The attack missed {' and '.join(blind)}, so it may miss more." if blind else "")
        )
    if blind or math.isnan(power.auc):
        missed = f"missed {' and '.join(blind)}" if blind else "would find no leak of any size"
        return None, (
            f"The attack is too weak to tell: it {missed}. Take more patients, networks or steps."
        )
    worst = primary[0]
    return False, (
        f"No sign that membership leaks: AUC {worst.auc:.2f} [{worst.auc_low:.2f}, "
        f"{worst.auc_high:.2f}]. A leak of AUC {power.auc:.2f}, which finds {power.found:.0%} of "
        f"members at {FALSE_POSITIVES:.0%} false positives, would have been found with a chance of "
        f"{POWER:.0%}; a smaller one may have been missed."
    )


def list_notes(
    settings: Mapping[str, Any],
    attacked: Attacked,
    power: Power,
    controls: Sequence[Attack],
) -> list[str]:
    """List what has to be known beside the verdict.

    Args:
        settings: As of `Membership`.
        attacked: The part of the network.
        power: Of the attack on the networks.
        controls: As of `judge`.

    Returns:
        Sentences.
    """
    notes = [
        f"Primary measure, fixed before the run: AUC of {PRIMARY} over patients, of all networks.",
        *(f"{name}: {text}." for name, text in attacked.scores.items()),
        "networks: each is attacked with the help of the others, so this is a statement on the "
        "recipe; a checkpoint that validations chose has seen its images no more often.",
        f"overfitted: a network that was trained {settings['rounds']} times as long on an eighth "
        "of the patients. It and canaries have to be caught: to lie above 0.5 with a chance below "
        f"{LEVEL}.",
        f"canaries: {settings['canaries']} planted patients, who make up "
        f"{settings['canary_share']:.0%} of what a network sees. {attacked.canaries} Each network "
        "was trained on a half of them, and for longer, so that it saw the others as often as the "
        "recipe says.",
        f"power: the smallest leak that is found with a chance of {POWER:.0%}, if it raises the "
        "scores of all members alike; one of a few patients shows in the share that is found. "
        f"Above {power.threshold:.2f} an AUC is a sign.",
        "patients: by how many standard deviations each one's score is higher under networks that "
        "were trained on the patient; the order is that of sorted hashes.",
        f"Only the {settings['only']} is attacked, no other part of the network, and not what a "
        "detector learns.",
    ]
    for start in controls:
        if (start.target, start.score) != (START, PRIMARY):
            continue
        notes.append(
            "checkpoint: members are the patients whom its manifest names, whichever part was "
            "trained on them; if it was trained for other steps, the networks know less of it."
        )
        if start.p_value < LEVEL:
            notes.append(
                "checkpoint: its AUC says nothing, for its members differ from others in kind: a "
                "network that was trained on nobody ranks them above others, too "
                f"({start.auc:.2f})."
            )
    if settings["patients"] < _ENOUGH_PATIENTS:
        notes.append(
            f"{plural(settings['patients'], 'patient')}: with fewer than {_ENOUGH_PATIENTS} a sign "
            "says little of other patients, and controls are easily missed."
        )
    if settings["unnamed_images"]:
        notes.append(
            f"{plural(settings['unnamed_images'], 'image')} of unknown patients count as a patient "
            "each: slices of one person in both halves hide a leak."
        )
    if settings["only"] == "variation":
        notes.append(
            "variation: scores of patients who are most like each other share pairs, so intervals "
            "are narrower, and chances of overfitted and of a checkpoint lower, than they should "
            "be; those of networks and canaries, by halves drawn anew, are exact."
        )
    if settings["start_from"]:
        notes.append(
            "All networks start from one checkpoint; of the patients whom that was trained on this "
            "says nothing."
        )
    return notes
