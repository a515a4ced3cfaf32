"""`plait completion`: the scripts that make a shell complete what is typed."""

import click
from click.shell_completion import BashComplete, add_completion_class, get_completion_class

from plait.cli.command import Command

_PLACES = {
    "bash": "plait completion bash > ~/.local/share/bash-completion/completions/plait",
    "zsh": 'plait completion zsh > "${fpath[1]}/_plait"',
    "fish": "plait completion fish > ~/.config/fish/completions/plait.fish",
}
_EVALS = {
    "bash": 'or put this line into ~/.bashrc:  eval "$(plait completion bash)"',
    "zsh": 'or put this line into ~/.zshrc, after compinit:  eval "$(plait completion zsh)"',
    "fish": "or put this line into ~/.config/fish/config.fish:  plait completion fish | source",
}


class _Bash(BashComplete):
    """Bash cuts words at `:` and `=`, of which ids and COLUMN=VALUE are full; here they are put together again."""

    source_template = r"""
%(complete_func)s() {
    local IFS=$'\n' line="$COMP_LINE" piece current prefix response completion type value
    local -a words=()
    for piece in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        if [[ ${#words[@]} -gt 0 && -n $line && $line != [[:space:]]* ]]; then
            words[${#words[@]}-1]+="$piece"
        else
            line="${line#"${line%%%%[![:space:]]*}"}"
            words+=("$piece")
        fi
        line="${line#"$piece"}"
    done
    current="${words[${#words[@]}-1]}"
    prefix=""
    [[ $current == "${COMP_WORDS[COMP_CWORD]}" ]] || prefix="${current%%"${current##*[:=]}"}"
    response=$(IFS=' '; env COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]}-1)) %(complete_var)s=bash_complete "$1")
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        if [[ $type == 'dir' ]]; then
            COMPREPLY=()
            compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            COMPREPLY=()
            compopt -o default
        elif [[ $type == 'plain' ]]; then
            COMPREPLY+=("${value#"$prefix"}")
        fi
    done
    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


add_completion_class(_Bash)


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(tuple(_PLACES)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete plait's commands, options and ids.

    Ids of models, jobs and files are asked from the server, for a second at most.

    \b
    plait completion bash > ~/.local/share/bash-completion/completions/plait
    plait completion zsh > "${fpath[1]}/_plait"
    plait completion fish > ~/.config/fish/completions/plait.fish
    """
    made = get_completion_class(shell)
    if made is None:
        raise AssertionError(shell)
    script = made(ctx.find_root().command, {}, "plait", "_PLAIT_COMPLETE").source()
    click.echo(script.strip())
    # Behind the script: zsh wants its own first line to be the first.
    click.echo(f"# Keep this where your shell looks for it:  {_PLACES[shell]}")
    click.echo(f"# {_EVALS[shell]}")
