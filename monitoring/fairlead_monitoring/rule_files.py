"""Rules from files: fairlead's own, then a person's."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairlead_daemon.errors import BadSettings
from fairlead_monitoring.decisions.rules import Rule, combine, read_rules
from fairlead_monitoring.settings import MonitorSettings

DEFAULTS = Path(__file__).with_name("default_rules.toml")


def load_rules(settings: MonitorSettings) -> dict[str, Rule]:
    """Raises BadSettings naming file, rule and column."""
    files = [*([DEFAULTS] if settings.default_rules else []), *map(Path, settings.rules)]
    return combine(read_rules(_values(file), place=str(file) if file != DEFAULTS else file.name) for file in files)


def _values(file: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSettings(f"rules: {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"rules: {file}: {error}") from error
