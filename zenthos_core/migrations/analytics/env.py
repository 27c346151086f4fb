from zenthos_core.migrations.environment import run

run()
