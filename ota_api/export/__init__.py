"""Export: tables of the lake and the databases, for whoever may look."""
