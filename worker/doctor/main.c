/* SPDX-License-Identifier: Apache-2.0 */
/* oxbow-worker doctor: the check-up on its own, without a coordinator. */
#include <argp.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "proto/base/log.h"
#include "proto/base/utf8.h"
#include "worker/doctor/doctor.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };
enum { OPT_JSON = 0x100, OPT_ONLY, OUT_BYTES = 1 << 20 };

struct args {
    const char *config, *only;
    bool json;
};

static const struct argp_option options[] = {
    {"config", 'c', "FILE", 0, "Configuration; default /etc/oxbow/worker.yaml", 0},
    {"only", OPT_ONLY, "WHAT", 0, "Only host, device, engine, repository or broker", 0},
    {"json", OPT_JSON, NULL, 0, "Write JSON Lines, one finding a line", 0},
    {0},
};

static error_t parse_only(const char *arg, struct args *a, struct argp_state *state)
{
    static const char *const groups[] = {"host", "device", "engine", "repository", "broker"};
    for (size_t i = 0; i < ARRAY_LEN(groups); i++) {
        if (strcmp(groups[i], arg) == 0) {
            a->only = groups[i];
            return 0;
        }
    }
    argp_error(state, "--only '%s' is none of host, device, engine, repository, broker", arg);
    return EINVAL;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    if (key == 'c')
        a->config = arg;
    else if (key == OPT_JSON)
        a->json = true;
    else if (key == OPT_ONLY)
        return parse_only(arg, a, state);
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .doc =
        "Check what is around this worker: machine, devices, engine, repository, broker. Changes "
        "nothing.\vExit code: 0 no failure was found, 1 one or more, 2 the command line or the "
        "configuration is wrong. 'oxbow doctor' asks all workers at once.",
};

/* Control characters do not reach the terminal. */
static int add_text(struct buf *out, const char *text, bool utf8)
{
    (void)utf8;
    int columns = 0;
    for (; *text; columns++) {
        size_t len = utf8_length(text);
        if (len == 0 || (len == 1 && ((unsigned char)*text < ' ' || *text == 0x7f)))
            (void)buf_add(out, "?", 1);
        else
            (void)buf_add(out, text, len);
        text += len ? len : 1;
    }
    return columns;
}

static bool render(const struct doctor_report *r, bool json, struct buf *out, struct err *err)
{
    const struct finding_style style = {.color = isatty(STDOUT_FILENO) && !getenv("NO_COLOR"),
                                        .add_text = add_text};
    struct finding_counts counts = {0};
    for (size_t i = 0; i < r->findings.count; i++) {
        if (json && !finding_json(&r->findings.v[i], out, err))
            return false;
        if (!json)
            finding_render(&r->findings.v[i], &style, out);
    }
    findings_count(r->findings.v, r->findings.count, &counts);
    if (!json)
        findings_render_sum(&counts, out);
    return true;
}

static int check_up(const struct worker_conf *conf, const struct args *a, struct err *err)
{
    SCOPED(doctor)
    struct doctor *d = doctor_new(&(struct doctor_opts){
        .conf = conf, .conf_path = a->config, .only = a->only, .broker = true});
    doctor_run(d);
    struct doctor_report report;
    doctor_read(d, &report);
    struct finding_counts counts = {0};
    findings_count(report.findings.v, report.findings.count, &counts);
    SCOPED_BUF struct buf out;
    buf_init(&out, OUT_BYTES);
    bool ok = render(&report, a->json, &out, err) &&
              file_write_full(STDOUT_FILENO, buf_str(&out), out.len, err);
    doctor_report_done(&report);
    return ok && counts.by_level[FINDING_FAILURE] == 0 ? EXIT_DONE : EXIT_FAILED;
}

int doctor_main(int argc, char **argv)
{
    static char name[] = "oxbow-worker doctor";
    struct args args = {.config = "/etc/oxbow/worker.yaml"};
    argv[0] = name;
    argp_err_exit_status = EXIT_USAGE;
    if (argp_parse(&argp, argc, argv, 0, NULL, &args) != 0)
        return EXIT_USAGE;
    log_set_level(LOG_LEVEL_ERROR);
    struct err err = ERR_INIT;
    SCOPED(worker_conf) struct worker_conf *conf = worker_conf_load(args.config, true, &err);
    int code = conf ? check_up(conf, &args, &err) : EXIT_USAGE;
    if (err_is_set(&err))
        fprintf(stderr, "oxbow-worker doctor: %s\n", err.message);
    return code;
}
