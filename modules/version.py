"""The version of the project, as in pyproject.toml and CHANGELOG.md."""

VERSION = "5.0.0"
