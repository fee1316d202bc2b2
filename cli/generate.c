/* The manual page and the shells' completions, made of the tables of commands and options:
 * `lik --generate man|bash|zsh|fish`, which the build runs. */
#include "cli.h"

#include <string.h>

#define EACH_COMMAND(c) for (const struct command *c = commands; c->name; c++)

/* The values that an option has a list of, with spaces between, or NULL. */
static const char *choices(const struct option_help *o)
{
    static const char *const known[][2] = {
        {"color", "auto always never"},
        {"cmap", "viridis grey"},
        {"device", "auto cpu cpu:avx2 cpu:generic ref cuda:0 metal"},
        {"nbits", "1 2 4 8"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(o->name, known[i][0]))
            return known[i][1];
    return NULL;
}

static int is_file(const struct option_help *o)
{
    return o->value && (!strcmp(o->value, "FILE") || !strcmp(o->value, "PREFIX") || !strcmp(o->value, "DIR"));
}

/* ---- the manual page ---- */

/* A line of text in roff: nothing at its beginning is a request, no hyphen is broken. */
static void man_text(const char *text)
{
    int begins = 1;
    for (; *text; text++) {
        if (begins && (*text == '.' || *text == '\''))
            fputs("\\&", stdout);
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-')
            fputs("\\-", stdout);
        else
            putchar(*text);
        begins = *text == '\n';
    }
}

static void man_option(const struct option_help *o, void *unused)
{
    (void)unused;
    printf(".TP\n");
    if (o->letter)
        printf("\\fB\\-%c\\fR, ", o->letter);
    printf("\\fB\\-\\-");
    man_text(o->name);
    printf("\\fR");
    if (o->value) {
        fputs(o->value[0] == '[' ? "" : " ", stdout);
        man_text(o->value);
    }
    printf("\n");
    man_text(o->help);
    printf("\n");
}

static void man(void)
{
    printf(".TH LIK 1 \"\" \"lik %s\"\n.SH NAME\nlik \\- late-interaction scores (MaxSim) of token vectors, "
           "from files\n.SH SYNOPSIS\n",
           lik_version());
    EACH_COMMAND(c)
    {
        printf(".B lik %s\n", c->name);
        man_text(c->arguments);
        printf("%s[options]\n.br\n", *c->arguments ? " " : "");
    }
    printf(".SH DESCRIPTION\n"
           "score(q, d) = sum over query tokens of the maximum over document tokens of their products,\n"
           "exactly, without an index.\n");
    EACH_COMMAND(c)
    {
        printf(".SH LIK %s\n", c->name);
        man_text(c->summary);
        printf(".\n.PP\n.nf\n");
        man_text(c->about);
        printf(".fi\n");
        options_each(c, man_option, NULL);
    }
    printf(
        ".SH EXIT STATUS\n0 done, 1 no result (\\-\\-fail\\-empty), 2 usage, 3 unreadable or corrupt input,\n"
        "4 incompatible input, 5 out of memory or disk, 6 device unavailable, 130 interrupted.\n"
        ".SH ENVIRONMENT\nLIK_THREADS, LIK_CPU, LIK_DEMO_DATA, NO_COLOR, XDG_CACHE_HOME.\n");
}

/* ---- completions ---- */

static void bash_option(const struct option_help *o, void *unused)
{
    (void)unused;
    printf(" --%s", o->name);
    if (o->letter)
        printf(" -%c", o->letter);
}

static void bash_values(const struct option_help *o, void *unused)
{
    (void)unused;
    if (choices(o))
        printf("        --%s) COMPREPLY=($(compgen -W '%s' -- \"$word\")); return ;;\n", o->name, choices(o));
}

static void bash(void)
{
    printf("# Completions of lik for bash.\n_lik()\n{\n"
           "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} verb= options= i\n"
           "    if [[ $word == = ]]; then word=; elif [[ $before == = ]]; then "
           "before=${COMP_WORDS[COMP_CWORD-2]}; fi\n"
           "    for ((i = 1; i < COMP_CWORD; i++)); do\n        case ${COMP_WORDS[i]} in\n            ");
    EACH_COMMAND(c)
    printf("%s%s", c == commands ? "" : "|", c->name);
    printf(") verb=${COMP_WORDS[i]}; break ;;\n        esac\n    done\n    case $before in\n");
    options_each(NULL, bash_values, NULL);
    printf("    esac\n    if [[ -z $verb ]]; then\n        COMPREPLY=($(compgen -W '");
    EACH_COMMAND(c)
    printf("%s ", c->name);
    printf("--help --version' -- \"$word\"))\n        return\n    fi\n    case $verb in\n");
    EACH_COMMAND(c)
    {
        printf("        %s) options='", c->name);
        options_each(c, bash_option, NULL);
        printf("' ;;\n");
    }
    printf("    esac\n    if [[ $word == -* ]]; then\n        COMPREPLY=($(compgen -W \"$options\" -- "
           "\"$word\"))\n"
           "    else\n        local IFS=$'\\n'\n        COMPREPLY=($(compgen -f -- \"$word\"))\n    fi\n}\n"
           "complete -o filenames -F _lik lik\n");
}

/* Text between single quotes, without what zsh's specifications take for their own. */
static void zsh_text(const char *text)
{
    for (; *text; text++)
        if (*text == '\'')
            printf("'\\''");
        else
            putchar(*text == '[' ? '(' : *text == ']' ? ')' : *text == ':' ? ',' : *text);
}

/* The same for fish, which takes no more than the quote and the backslash. */
static void fish_text(const char *text)
{
    for (; *text; text++)
        printf(*text == '\'' || *text == '\\' ? "\\%c" : "%c", *text);
}

static void zsh_option(const struct option_help *o, void *unused)
{
    (void)unused;
    for (int brief = 0; brief < (o->letter ? 2 : 1); brief++) {
        if (brief)
            printf(" \\\n                '-%c", o->letter);
        else
            printf(" \\\n                '--%s", o->name);
        printf(o->value && o->value[0] != '[' && !brief ? "=[" : "[");
        zsh_text(o->help);
        printf("]");
        if (o->value && o->value[0] != '[') {
            printf(":");
            zsh_text(o->value);
            printf(":%s%s%s", choices(o) ? "(" : "",
                   choices(o)   ? choices(o)
                   : is_file(o) ? "_files"
                                : "",
                   choices(o) ? ")" : "");
        }
        printf("'");
    }
}

static void zsh(void)
{
    printf("#compdef lik\n# Completions of lik for zsh.\n_lik() {\n    local -a verbs\n    verbs=(\n");
    EACH_COMMAND(c)
    {
        printf("        '%s:", c->name);
        zsh_text(c->summary);
        printf("'\n");
    }
    printf("    )\n    if (( CURRENT == 2 )); then\n        _describe command verbs\n        return\n    fi\n"
           "    local verb=$words[2]\n    shift words\n    (( CURRENT-- ))\n    case $verb in\n");
    EACH_COMMAND(c)
    {
        printf("        %s)\n            _arguments -S", c->name);
        options_each(c, zsh_option, NULL);
        printf(" \\\n                '*:file:_files' ;;\n");
    }
    printf("    esac\n}\n_lik \"$@\"\n");
}

static void fish_option(const struct option_help *o, void *verb)
{
    printf("complete -c lik -n '__fish_seen_subcommand_from %s' -l %s", (const char *)verb, o->name);
    if (o->letter)
        printf(" -s %c", o->letter);
    if (choices(o))
        printf(" -x -a '%s'", choices(o));
    else if (o->value && o->value[0] != '[')
        printf(is_file(o) ? " -r -F" : " -x");
    printf(" -d '");
    fish_text(o->help);
    printf("'\n");
}

static void fish(void)
{
    printf("# Completions of lik for fish.\n");
    EACH_COMMAND(c)
    {
        printf("complete -c lik -n __fish_use_subcommand -a %s -d '", c->name);
        fish_text(c->summary);
        printf("'\n");
    }
    EACH_COMMAND(c)
    options_each(c, fish_option, (void *)c->name);
}

void generate(const char *what)
{
    static const struct {
        const char *name;
        void (*make)(void);
    } known[] = {{"man", man}, {"bash", bash}, {"zsh", zsh}, {"fish", fish}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(what, known[i].name)) {
            known[i].make();
            return;
        }
    die(EXIT_USAGE, "--generate makes man, bash, zsh or fish, not '%s'", what);
}
