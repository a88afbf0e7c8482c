"""The tree of commands. Each command's module is imported when the command is typed, so that all start fast."""

from __future__ import annotations

from cyclopts import App

from blocks.version import VERSION

_EPILOGUE = """PLAN is the path of a YAML plan, or the name of a saved Backup Plan block.
Every command that prints a table prints JSON with --json. With --debug (or LASTGOOD_DEBUG=1) errors show a traceback.
Exit codes: 0 done, 1 unexpected, 2 usage or plan, 3 source, 4 repository, 5 locked, 6 no such backup, 7 key, 8 damage,
9 quality, 10 refused, 11 partial, 130 interrupted."""

_COMMANDS = {
    "init": ("commands_make:init", "Create the repository and its keys, and print the recovery kit once."),
    "backup": ("commands_make:backup", "Back up all sources of a plan, or none."),
    "list": ("commands_read:list_backups", "List a plan's backups."),
    "show": ("commands_read:show", "Show one backup, its collections, its chain and its verifications."),
    "diff": ("commands_diff:diff", "Show what changed between two backups, down to the field."),
    "restore": ("commands_restore:restore", "Restore a backup, some collections, or single keys."),
    "verify": ("commands_prove:verify", "Prove that a backup can be restored and is good data."),
    "check": ("commands_prove:check", "Check that the repository is whole, and repair what can be."),
    "retention": ("commands_make:retention", "Remove what the plan's policy no longer keeps."),
    "serve": ("commands_run:serve", "Run the schedules of plans in this process."),
    "demo": ("commands_run:demo", "Tell the whole story on an embedded example."),
}
_KEY_COMMANDS = {
    "list": ("commands_key:list_keys", "List the credentials that open the repository."),
    "add": ("commands_key:add", "Let one more credential open the repository."),
    "remove": ("commands_key:remove", "Take a credential away."),
}
_PLAN_COMMANDS = {"save": ("commands_run:save_plan", "Save a plan as a Backup Plan block.")}


def build_app() -> App:
    """Make the command tree."""
    app = App(
        name="lastgood",
        help="Back up application state, restore it, and prove that it can be restored.",
        help_epilogue=_EPILOGUE,
        help_format="plaintext",
        version=f"lastgood {VERSION}",
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )
    key = App(name="key", help="Show and change who can open a plan's repository.")
    plan = App(name="plan", help="Keep plans where the Prefect UI can pick them.")
    for group, commands in ((app, _COMMANDS), (key, _KEY_COMMANDS), (plan, _PLAN_COMMANDS)):
        for name, (target, summary) in commands.items():
            group.command(f"flows.cli.{target}", name=name, help=summary)
    app.command(key)
    app.command(plan)
    return app
