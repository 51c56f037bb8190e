/* The command line. The only place that decides to exit. */
#include "base/log.h"
#include "deck/deck.h"
#include "io/recovery.h"
#include "model/model.h"
#include "quorate_version.h"
#include "run/run.h"

#include <errno.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How long a rank that has nothing to say gives another one to say why the job ends. */
enum { ABORT_AFTER_S = 5 };

/* Of a job that a check plans for. */
enum { MOST_RANKS = 65536 };

/* sysexits.h's EX_TEMPFAIL: batch systems are told to queue the job again. */
enum { EXIT_RESUMABLE = 75 };

static const char usage[] = "usage: quorate run DECK [--set key=value]... [--restart auto|DIR] [--dry-run] [--quiet]\n"
                            "       quorate check DECK [--set key=value]... [--ranks N] [--nodes N] [--values]\n"
                            "       quorate keys [PREFIX]\n"
                            "       quorate models\n"
                            "       quorate info FILE|DIR...\n"
                            "       quorate info DIR... --repair\n"
                            "       quorate --help | --version\n";

static const char help[] =
    "Quorate: a batch simulator of collective decisions.\n"
    "\n"
    "  run     simulate a deck; start it with mpirun or srun to use several ranks\n"
    "  check   validate a deck and print every value it resolves to, with unit and origin, and what memory it needs\n"
    "  keys    every deck key that begins with PREFIX: type, unit, default, bounds, meaning\n"
    "  models  every model: parameters, reference\n"
    "  info    what a result file or directory holds, and whether it can be read; which checkpoints several\n"
    "          directories hold together, and whether each verifies\n"
    "\n"
    "  --set key=value  overrides a value of the deck, for instance --set run.seed=8\n"
    "  --dry-run        check the deck, the files it names and the results directory, say what memory each rank would\n"
    "                   need, stop\n"
    "  --ranks N        check: plan memory for a job of N ranks, I/O ranks included; 1 unless told otherwise\n"
    "  --nodes N        check: ... on N machines such as this one; 1 unless told otherwise\n"
    "  --values         check: the values alone, which need not fit this machine\n"
    "  --restart auto   go on from the newest checkpoint of the deck's tiers that is whole; begin afresh where there "
    "is none\n"
    "  --restart DIR    go on from the newest checkpoint in DIR, or from one .manifest file\n"
    "  --repair         make damaged or missing copies of checkpoints again from good ones\n"
    "  --quiet          only the decision and the state hash\n"
    "\n"
    "Exit codes: 0 done, 2 wrong usage or deck, 3 the machine lacks something, 4 data or I/O failure, 75 stopped by a\n"
    "signal with a checkpoint to go on from.\n";

/* Before MPI is up, the launchers' variables tell which rank this is: a job has one message. */
static bool is_first_rank(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *rank = getenv(names[i]);
        if (rank != NULL) {
            return strcmp(rank, "0") == 0;
        }
    }
    return true;
}

static int fail(qr_status status)
{
    qr_failure("%s", qr_error_message());
    return qr_status_exit_code(status);
}

/* The exit code, given that of the command: what was said must also have been written. */
static int close_output(int code)
{
    bool lost = ferror(stdout) != 0;
    errno = 0;
    lost = fflush(stdout) != 0 || lost; /* of what failed before, nobody kept the cause */
    if (!lost) {
        return code;
    }
    qr_failure("standard output could not be written%s%s", errno != 0 ? ": " : "", errno != 0 ? strerror(errno) : "");
    return code != 0 ? code : qr_status_exit_code(QR_DATA);
}

/* "--name N" or "--name=N" at argv[*i]: true with *status, and *i at its last word. */
static bool takes_count(int argc, char **argv, int *i, const char *name, int *out, qr_status *status)
{
    size_t n = strlen(name);
    if (strncmp(argv[*i], name, n) != 0 || (argv[*i][n] != '\0' && argv[*i][n] != '=')) {
        return false;
    }
    const char *word = argv[*i][n] == '=' ? argv[*i] + n + 1 : *i + 1 < argc ? argv[++*i] : "";
    char *end = NULL;
    long value = strtol(word, &end, 10);
    bool good = end != word && *end == '\0' && value >= 1 && value <= MOST_RANKS;
    *out = good ? (int)value : 1;
    *status = good ? QR_OK : qr_error(QR_USAGE, "%s needs a whole number from 1 to %d after it", name, MOST_RANKS);
    return true;
}

/* Ranks are given, or one for each node. */
static qr_status settle_job(qr_run_options *options)
{
    options->n_nodes = options->n_nodes > 0 ? options->n_nodes : 1;
    options->n_ranks = options->n_ranks > 0 ? options->n_ranks : options->n_nodes;
    return options->n_ranks >= options->n_nodes
               ? QR_OK
               : qr_error(QR_USAGE, "--nodes %d with --ranks %d: a node has a rank at the least", options->n_nodes,
                          options->n_ranks);
}

/* DECK and options of run and check, in any order. */
static qr_status parse_options(int argc, char **argv, bool running, const char **overrides, qr_run_options *out)
{
    *out = (qr_run_options){.overrides = overrides};
    for (int i = 2; i < argc; i++) {
        const char *argument = argv[i];
        qr_status status = QR_OK;
        if (!running && (takes_count(argc, argv, &i, "--ranks", &out->n_ranks, &status) ||
                         takes_count(argc, argv, &i, "--nodes", &out->n_nodes, &status))) {
            if (status != QR_OK) {
                return status;
            }
        } else if (!running && strcmp(argument, "--values") == 0) {
            out->values_only = true;
        } else if (strcmp(argument, "--set") == 0) {
            if (i + 1 == argc) {
                return qr_error(QR_USAGE, "--set needs key=value after it");
            }
            overrides[out->n_overrides++] = argv[++i];
        } else if (strncmp(argument, "--set=", 6) == 0) {
            overrides[out->n_overrides++] = argument + 6;
        } else if (running && strcmp(argument, "--dry-run") == 0) {
            out->dry_run = true;
        } else if (running && strcmp(argument, "--restart") == 0) {
            if (i + 1 == argc) {
                return qr_error(QR_USAGE, "--restart needs auto, a directory or a manifest after it");
            }
            out->restart = argv[++i];
        } else if (running && strncmp(argument, "--restart=", 10) == 0) {
            out->restart = argument + 10;
        } else if (running && strcmp(argument, "--quiet") == 0) {
            out->quiet = true;
        } else if (argument[0] == '-' && argument[1] != '\0') {
            return qr_error(QR_USAGE, "%s: no option '%s'; see quorate --help", argv[1], argument);
        } else if (out->deck_path != NULL) {
            return qr_error(QR_USAGE, "%s takes one deck, but '%s' and '%s' were given", argv[1], out->deck_path,
                            argument);
        } else {
            out->deck_path = argument;
        }
    }
    if (out->deck_path == NULL) {
        return qr_error(QR_USAGE, "%s needs a deck; see quorate --help", argv[1]);
    }
    return settle_job(out);
}

static int command_check(const qr_run_options *options)
{
    char *text = NULL;
    qr_status status = qr_check_deck(options, &text);
    if (status != QR_OK) {
        return fail(status);
    }
    (void)fputs(text, stdout);
    free(text);
    return 0;
}

/* All ranks come to the same status; one of them says why. */
static int command_run(const qr_run_options *options)
{
    int provided = MPI_THREAD_SINGLE;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
        (void)qr_error(QR_ENVIRONMENT, "MPI could not be started");
        return fail(QR_ENVIRONMENT);
    }
    qr_run_outcome outcome;
    qr_status status = qr_run_deck(options, &outcome);
    int code = outcome.resumable ? EXIT_RESUMABLE : qr_status_exit_code(status);
    if (status != QR_OK && outcome.speaks) {
        (void)fail(status);
    }
    if (outcome.must_abort) {
        if (!outcome.speaks) { /* the rank that does ends the job when it has spoken */
            (void)sleep(ABORT_AFTER_S);
        }
        MPI_Abort(MPI_COMM_WORLD, close_output(code));
    }
    MPI_Finalize();
    if (outcome.exit_fast) {
        _exit(close_output(code));
    }
    return code;
}

static int command_keys(const char *prefix)
{
    if (qr_deck_print_keys(stdout, prefix) == 0) {
        (void)qr_error(QR_USAGE, "no deck key begins with '%s'; `quorate keys` lists all", prefix);
        return fail(QR_USAGE);
    }
    return 0;
}

static int command_info(int argc, char **argv)
{
    const char **paths = calloc((size_t)argc, sizeof *paths);
    int n = 0;
    bool repair = false;
    qr_status status = paths == NULL ? qr_error_memory((size_t)argc * sizeof *paths, "arguments") : QR_OK;
    for (int i = 2; i < argc && status == QR_OK; i++) {
        if (strcmp(argv[i], "--repair") == 0) {
            repair = true;
        } else if (argv[i][0] == '-' && argv[i][1] != '\0') {
            status = qr_error(QR_USAGE, "info: no option '%s'; see quorate --help", argv[i]);
        } else {
            paths[n++] = argv[i];
        }
    }
    if (status == QR_OK && n == 0) {
        status = qr_error(QR_USAGE, "info needs a file or a directory; see quorate --help");
    }
    status = status != QR_OK ? status : qr_info_places(paths, n, repair);
    free(paths);
    return status == QR_OK ? 0 : fail(status);
}

static int usage_error(const char *word)
{
    if (word[0] == '\0') {
        (void)qr_error(QR_USAGE, "a command is needed");
    } else {
        (void)qr_error(QR_USAGE, "'%s' is no command, or has the wrong number of arguments", word);
    }
    int code = fail(QR_USAGE);
    (void)fputs(usage, stderr);
    return code;
}

static int dispatch(int argc, char **argv, const char **overrides)
{
    const char *command = argc > 1 ? argv[1] : "";
    if (strcmp(command, "run") == 0 || strcmp(command, "check") == 0) {
        bool running = strcmp(command, "run") == 0;
        qr_run_options options;
        qr_status status = parse_options(argc, argv, running, overrides, &options);
        if (status == QR_OK) {
            status = qr_check_processor();
        }
        if (status != QR_OK) {
            return is_first_rank() ? fail(status) : qr_status_exit_code(status);
        }
        return running ? command_run(&options) : command_check(&options);
    }
    if (strcmp(command, "keys") == 0 && argc <= 3) {
        return command_keys(argc == 3 ? argv[2] : "");
    }
    if (strcmp(command, "models") == 0 && argc == 2) {
        qr_model_print_all(stdout);
        return 0;
    }
    if (strcmp(command, "info") == 0) {
        return command_info(argc, argv);
    }
    if (strcmp(command, "--version") == 0) {
        (void)printf("quorate %s (%s)\n", QR_VERSION, QR_REVISION);
        return 0;
    }
    if (strcmp(command, "--help") == 0 || strcmp(command, "help") == 0) {
        (void)printf("%s%s", usage, help);
        return 0;
    }
    return usage_error(command);
}

int main(int argc, char **argv)
{
    const char **overrides = calloc((size_t)argc + 1, sizeof *overrides);
    if (overrides == NULL) {
        return fail(qr_error_memory((size_t)argc * sizeof *overrides, "arguments"));
    }
    int code = dispatch(argc, argv, overrides);
    free(overrides);
    return close_output(code);
}
