"""What a preset knows, as text to paste into pfstore.toml."""

from __future__ import annotations

from pfstore.sources.presets.catalogue import Preset


def shown(preset: Preset) -> str:
    """Return the preset as a source of pfstore.toml, with all that it knows and stands for in comments."""
    lives = ", ".join("mysql (MariaDB)" if one == "mysql" else one for one in preset.engines)
    about = [
        f"{preset.title}, on {lives}" if lives else f'{preset.title}: files, format = "{preset.format}"',
        f"norms: {preset.normalisation}",
        f"change mark: {preset.change_mark}",
        *preset.notes,
    ]
    store = 'url = "…"' if preset.engines else 'path = "…"'
    source = f'[sources.{preset.system}]\n{store}\npreset = "{preset.name}"'
    return "\n".join([*(f"# {line}" for line in about), source, *_mapping(preset)])


def _mapping(preset: Preset) -> list[str]:
    lines = [f"{key} = {value}" for key, value in preset.mapping.items() if key not in ("exclude", "query")]
    query = str(preset.mapping.get("query", "")).strip().splitlines()
    causes = [f"excluded: {cause}: {condition}" for cause, condition in preset.mapping.get("exclude", {}).items()]
    return [f"#   {line}" for line in (*lines, *query, *causes)]
