/* The manual page and the shells' completions, made of the tables of commands and options:
 * `lik --generate man|bash|zsh|fish`, which the build runs. */
#include "cli.h"

#include <string.h>

#define EACH_COMMAND(c) for (const struct command *c = commands; c->name; c++)

/* What --device takes: the CPU's levels are those of this build. */
static const char *devices(void)
{
    static char text[256];
    const char *level;
    size_t n = (size_t)snprintf(text, sizeof text, "auto cpu ref cuda:0 metal");
    for (int32_t i = 0; (level = lik_cpu_level(i, NULL)) && n < sizeof text; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, " cpu:%s", level);
    return text;
}

/* The values that an option has a list of, with spaces between, or NULL. */
static const char *choices(const struct option_help *o)
{
    static const char *const known[][2] = {
        {"color", "auto always never"},
        {"cmap", "viridis grey"},
        {"nbits", "1 2 4 8"},
    };
    if (!strcmp(o->name, "device"))
        return devices();
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
        printf("        --%s) values='%s' ;;\n", o->name, choices(o));
}

static void bash(void)
{
    /* bash takes --device=cpu:avx2 for five words, and wants the last one completed alone. */
    printf(
        "# Completions of lik for bash.\n_lik()\n{\n"
        "    local word=${COMP_WORDS[COMP_CWORD]} at=$COMP_CWORD parted= values= verb= files= options= i\n"
        "    if [[ $word == : ]]; then parted=${COMP_WORDS[at-1]}:; word=; at=$((at - 1))\n"
        "    elif [[ ${COMP_WORDS[at-1]} == : ]]; then parted=${COMP_WORDS[at-2]}:; at=$((at - 2)); fi\n"
        "    if [[ $word == = ]]; then word=; elif [[ ${COMP_WORDS[at-1]} == = ]]; then at=$((at - 1)); fi\n"
        "    for ((i = 1; i < COMP_CWORD; i++)); do\n        case ${COMP_WORDS[i]} in\n            ");
    EACH_COMMAND(c)
    printf("%s%s", c == commands ? "" : "|", c->name);
    printf(") verb=${COMP_WORDS[i]}; break ;;\n        esac\n    done\n    case ${COMP_WORDS[at-1]} in\n");
    options_each(NULL, bash_values, NULL);
    printf("    esac\n    if [[ -n $values ]]; then\n        compopt +o filenames 2>/dev/null\n"
           "        COMPREPLY=($(compgen -W \"$values\" -- \"$parted$word\"))\n"
           "        COMPREPLY=(\"${COMPREPLY[@]#\"$parted\"}\")\n        return\n    fi\n"
           "    if [[ -z $verb ]]; then\n        compopt +o filenames 2>/dev/null\n        "
           "COMPREPLY=($(compgen -W '");
    EACH_COMMAND(c)
    printf("%s ", c->name);
    printf("--help --version' -- \"$word\"))\n        return\n    fi\n    case $verb in\n");
    EACH_COMMAND(c)
    {
        printf("        %s) files=%s options='", c->name, *c->arguments ? "yes" : "");
        options_each(c, bash_option, NULL);
        printf("' ;;\n");
    }
    printf("    esac\n    if [[ $word == -* ]]; then\n        COMPREPLY=($(compgen -W \"$options\" -- "
           "\"$word\"))\n"
           "    elif [[ -n $files ]]; then\n        local IFS=$'\\n'\n        COMPREPLY=($(compgen -f -- "
           "\"$word\"))\n    fi\n}\n"
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

/* A list of values; a colon would end it. */
static void zsh_choices(const char *text)
{
    putchar('(');
    for (; *text; text++)
        printf(*text == ':' ? "\\%c" : "%c", *text);
    putchar(')');
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
            printf(":");
            if (choices(o))
                zsh_choices(choices(o));
            else
                printf(is_file(o) ? "_files" : " ");
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
        printf(*c->arguments ? " \\\n                '*:file:_files' ;;\n" : " ;;\n");
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
        printf("complete -c lik -n __fish_use_subcommand -f -a %s -d '", c->name);
        fish_text(c->summary);
        printf("'\n");
    }
    EACH_COMMAND(c)
    {
        if (!*c->arguments) /* no files */
            printf("complete -c lik -n '__fish_seen_subcommand_from %s' -f\n", c->name);
        options_each(c, fish_option, (void *)c->name);
    }
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
