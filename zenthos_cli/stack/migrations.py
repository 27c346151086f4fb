"""Brings both databases to the newest schema; a process of its own, since it runs once."""

from zenthos_core.database import Database, migrate
from zenthos_core.settings import load_settings


def main() -> None:
    """Migrate what the settings name."""
    settings = load_settings()
    migrate(settings.database_url.get_secret_value(), Database.OPS)
    migrate(settings.analytics_database_url.get_secret_value(), Database.ANALYTICS)


if __name__ == "__main__":
    main()
