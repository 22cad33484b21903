# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# bash completion for oxbow(1). It asks the program itself (--verbs, --long-options VERB), so that it
# never lags behind.

_oxbow_words() { # WORD...: those that begin with $cur
    mapfile -t COMPREPLY < <(compgen -W "$*" -- "$cur")
}

# The argument that an option takes, as --help calls it; empty when it takes none.
_oxbow_argument_of() { # VERB OPTION
    "$program" --long-options "$1" 2>/dev/null | sed -n "s/^$2=//p"
}

# Complete the value of an option.
_oxbow_value() { # VERB OPTION
    local argument
    argument=$(_oxbow_argument_of "$1" "$2")
    case $argument in
    *'|'*) _oxbow_words "${argument//|/ }" ;;
    FILE) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    *) COMPREPLY=() ;;
    esac
}

_oxbow() {
    local program=$1 cur=${COMP_WORDS[COMP_CWORD]} prev='' verb=''
    COMPREPLY=()
    [ "$COMP_CWORD" -eq 0 ] || prev=${COMP_WORDS[COMP_CWORD - 1]}
    if [ "$COMP_CWORD" -eq 1 ]; then
        _oxbow_words "$("$program" --verbs 2>/dev/null)"
        return
    fi
    verb=${COMP_WORDS[1]}
    if [ "$verb" = help ]; then
        _oxbow_words "$("$program" --verbs 2>/dev/null)"
        return
    fi
    # "--quiesce=re": bash splits words at "=".
    if [ "$cur" = "=" ]; then
        cur=
        _oxbow_value "$verb" "$prev"
        return
    fi
    if [ "$prev" = "=" ] && [ "$COMP_CWORD" -ge 3 ]; then
        _oxbow_value "$verb" "${COMP_WORDS[COMP_CWORD - 2]}"
        return
    fi
    if [[ $prev == --* && -n $(_oxbow_argument_of "$verb" "$prev") ]]; then
        _oxbow_value "$verb" "$prev"
        return
    fi
    if [[ $cur == -* ]]; then
        _oxbow_words "$("$program" --long-options "$verb" 2>/dev/null | sed 's/=.*//')"
    fi
}

complete -F _oxbow oxbow
