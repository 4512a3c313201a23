# What bash offers for lxcfleet, as click's own script has it but for words with = and :, such as tier=front. bash takes
# each for several, and replaces the last one of them.
_lxcfleet_completion() {
    local IFS=$'\n' words=() word line=$COMP_LINE kept type value

    for word in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        if [[ ${#words[@]} -eq 0 || $line == [[:blank:]]* ]]; then
            words+=("$word")
        else
            words[-1]+=$word
        fi
        line=${line#*"$word"}
    done
    word=${words[-1]}
    kept=${word%"${word##*[=:]}"}
    # Of --option=value just the value is offered.
    [[ $kept != --*=* ]] || kept=${kept#*=}

    while IFS=, read -r type value; do
        case $type in
            dir) COMPREPLY=() && compopt -o dirnames ;;
            file) COMPREPLY=() && compopt -o default ;;
            plain) COMPREPLY+=("${value#"$kept"}") ;;
        esac
    done < <(COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) _LXCFLEET_COMPLETE=bash_complete "$1")
}

complete -o nosort -F _lxcfleet_completion lxcfleet
