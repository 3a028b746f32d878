"""What a race shows: its table, and where compression made nothing faster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deploy.racing.base import Contender
from deploy.racing.clock import Timed


@dataclass(frozen=True)
class Findings:
    """The times of a race.

    Args:
        timed: by batch size and the contender's name.
        same: by name, the share of pictures to which a compressed network gives the reference's answer.
    """

    contenders: list[Contender]
    timed: dict[int, dict[str, Timed]]
    same: dict[str, float]

    def table(self) -> list[list[str]]:
        """Return the rows of a table, the head first."""
        head = ["", "network"]
        for batch in self.timed:
            head += [f"batch {batch}, ms", "times as fast"]
        rows = [[*head, *["same answers"] * bool(self.same), "model, bytes", "runs by"]]
        for contender in self.contenders:
            row = [contender.name, "compressed" if contender.compressed else "float"]
            for timed in (each[contender.name] for each in self.timed.values()):
                row += [f"{timed.milliseconds:.2f}", f"{timed.faster:.2f} ({timed.low:.2f} to {timed.high:.2f})"]
            agreed = f"{100 * self.same[contender.name]:.1f} %" if contender.name in self.same else ""
            rows.append(
                [*row, *[agreed] * bool(self.same), f"{contender.size:,}" if contender.size else "", contender.note]
            )
        return rows

    def not_faster(self) -> list[str]:
        """Return a line for each batch size where the compressed network is not faster than the float network."""
        found = []
        for batch, timed in self.timed.items():
            plain = {c.name: timed[c.name].milliseconds for c in self.contenders if not c.compressed}
            packed = {c.name: timed[c.name].milliseconds for c in self.contenders if c.compressed}
            if not packed:
                continue
            best, small = min(plain, key=plain.__getitem__), min(packed, key=packed.__getitem__)
            if packed[small] >= plain[best]:
                found.append(
                    f"batch {batch}: compression made nothing faster here: {small} takes {packed[small]:.2f} ms, "
                    f"the float network in {best} {plain[best]:.2f} ms"
                )
        return found

    def slower(self) -> list[dict[str, Any]]:
        """Return each runtime and batch size where the runtime's own fp32 is faster than its compressed network.

        Returns:
            runtime, kind (int8 or packed) and batch; milliseconds and, as `fp32`, those of fp32.
        """
        found = []
        for name in (c.name for c in self.contenders if c.compressed):
            runtime, _, kind = name.partition(", ")
            for batch, timed in self.timed.items():
                plain = timed.get(f"{runtime}, fp32")
                if plain and timed[name].milliseconds > plain.milliseconds:
                    times = {"milliseconds": timed[name].milliseconds, "fp32": plain.milliseconds}
                    found.append({"runtime": runtime, "kind": kind, "batch": batch, **times})
        return found
