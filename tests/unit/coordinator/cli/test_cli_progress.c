/* SPDX-License-Identifier: Apache-2.0 */
/* What the terminal shows, letter by letter. */
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/cli/format.h"
#include "coordinator/cli/progress.h"

#define MIB (INT64_C(1) << 20)

struct task {
    const char *id, *name, *state, *step, *worker;
    int64_t attempt, done, total, rate;
};

static bool update(struct progress *p, const struct task *t, int64_t now_ms)
{
    static char request[] = "r", kind[] = "backup";
    struct wire_progress m = {
        .request = request,
        .kind = kind,
        .attempt = t->attempt,
        .bytes_done = t->done,
        .bytes_total = t->total,
        .rate_bps = t->rate,
        .tasks_total = 60,
        .tasks_done = 12,
    };
    const char *const values[] = {t->id, t->name, t->state, t->step, t->worker};
    char **const members[] = {&m.task, &m.vm_name, &m.state, &m.step, &m.worker};
    for (size_t i = 0; i < ARRAY_LEN(members); i++)
        *members[i] = xstrdup_or_null(values[i]);
    bool changed = progress_update(p, &m, now_ms);
    for (size_t i = 0; i < ARRAY_LEN(members); i++)
        free(*members[i]);
    return changed;
}

static void end(struct progress *p, const char *task, const char *status)
{
    static char kind[] = "backup";
    SCOPED_FREE char *t = xstrdup(task), *s = xstrdup(status);
    progress_end(p, &(struct wire_outcome){.task = t, .kind = kind, .status = s});
}

static const struct task sample[] = {
    {"1", "web1", "running", "copy", "px2", 1, 520 * MIB, 1000 * MIB, 118 * MIB},
    {"2", "database-primary", "running", "snapshot", "px1", 1, 0, 0, 0},
    {"3", "mail", "running", "copy", "px1", 2, 10 * MIB, 1000 * MIB, 40 * MIB},
    {"4", "waits", "waiting", NULL, NULL, 0, 0, 0, 0},
    {"5", "offered", "offered", NULL, NULL, 0, 0, 0, 0},
};

static struct progress *make_sample(void)
{
    struct progress *p = progress_new(0);
    for (size_t i = 0; i < ARRAY_LEN(sample); i++)
        assert_true(update(p, &sample[i], 0));
    return p;
}

static void assert_renders(const struct progress *p, struct progress_view view, int64_t now_ms,
                           const char *expected)
{
    SCOPED_BUF struct buf out;
    buf_init(&out, 1 << 20);
    progress_render(p, &view, now_ms, &out);
    assert_string_equal(buf_str(&out), expected);
}

static void at_widths(void **state)
{
    (void)state;
    SCOPED(progress) struct progress *p = make_sample();
    assert_renders(p, (struct progress_view){.width = 100, .max_rows = 20, .utf8 = true}, 723000,
                   "web1              copy       ███████████████░░░░░░░░░░░░░░░   52%     118 "
                   "MiB/s      4s left "
                   " px2\n"
                   "mail              copy       ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░    1%    40.0 "
                   "MiB/s     24s left "
                   " px1\n"
                   "database-primary  snapshot                                                     "
                   "             "
                   "  px1\n"
                   "and 2 waiting\n"
                   "12 of 60 done, 3 running  158 MiB/s  12m03s\n");
}

/* Each narrower view drops a column; nothing ever wraps. */
static void never_wider_than_the_terminal(void **state)
{
    (void)state;
    SCOPED(progress) struct progress *p = make_sample();
    for (int width = 2; width < 200; width++) {
        for (int utf8 = 0; utf8 < 2; utf8++) {
            SCOPED_BUF struct buf out;
            buf_init(&out, 1 << 20);
            struct progress_view view = {.width = width, .max_rows = 20, .utf8 = utf8};
            progress_render(p, &view, 1000, &out);
            int lines = 0;
            for (char *at = out.data; *at;) {
                char *line_end = strchr(at, '\n');
                assert_non_null(line_end);
                *line_end = '\0';
                assert_in_range(text_width(at, utf8), 1, width - 1);
                at = line_end + 1;
                lines++;
            }
            assert_int_equal(lines, 5);
        }
    }
}

static void narrow(void **state)
{
    (void)state;
    SCOPED(progress) struct progress *p = make_sample();
    assert_renders(p, (struct progress_view){.width = 48, .max_rows = 20}, 1000,
                   "web1              copy       ######------   52%\n"
                   "mail              copy       ------------    1%\n"
                   "database-primary  snapshot\n"
                   "and 2 waiting\n"
                   "12 of 60 done, 3 running  158 MiB/s  1s\n");
    assert_renders(p, (struct progress_view){.width = 16, .max_rows = 20}, 1000,
                   "web1        52%\n"
                   "mail         1%\n"
                   "database~\n"
                   "and 2 waiting\n"
                   "12 of 60 done,~\n");
}

static void few_rows(void **state)
{
    (void)state;
    SCOPED(progress) struct progress *p = make_sample();
    assert_renders(p, (struct progress_view){.width = 48, .max_rows = 3}, 1000,
                   "web1      copy       ##########----------   52%\n"
                   "and 2 more running, 2 waiting\n"
                   "12 of 60 done, 3 running  158 MiB/s  1s\n");
    assert_renders(p, (struct progress_view){.width = 48, .max_rows = 2}, 1000,
                   "and 3 more running, 2 waiting\n"
                   "12 of 60 done, 3 running  158 MiB/s  1s\n");
    assert_renders(p, (struct progress_view){.width = 48, .max_rows = 1}, 1000,
                   "12 of 60 done, 3 running  158 MiB/s  1s\n");
}

static void many_machines(void **state)
{
    (void)state;
    SCOPED(progress) struct progress *p = progress_new(0);
    for (int i = 0; i < 500; i++) {
        char id[16], name[16];
        snprintf(id, sizeof id, "t%d", i);
        snprintf(name, sizeof name, "vm%03d", i);
        struct task t = {id, name, "running", "copy", "px1", 1, i, 1000, i + 1};
        update(p, &t, 0);
    }
    assert_renders(p, (struct progress_view){.width = 40, .max_rows = 4}, 1000,
                   "vm499     copy       #####-------   49%\n"
                   "vm498     copy       #####-------   49%\n"
                   "and 498 more running\n"
                   "12 of 512 done, 500 running  122 KiB/s~\n");
}

static void with_colors(void **state)
{
    (void)state;
    SCOPED(progress) struct progress *p = progress_new(0);
    update(p, &sample[2], 0);
    end(p, "x", "failed");
    assert_renders(p, (struct progress_view){.width = 30, .max_rows = 9, .color = true}, 0,
                   "mail      \033[33mcopy     \033[0m    1%\n"
                   "\033[1;31m12 of 60 done, 1 failed, 1 r~\033[0m\n");
}

static void names_are_made_safe(void **state)
{
    (void)state;
    SCOPED(progress) struct progress *p = progress_new(0);
    struct task evil = {"1", "a\033[2J\nb", "running", "st\rep", "w\033]0;x\a", 1, 0, 0, 0};
    update(p, &evil, 0);
    assert_renders(p, (struct progress_view){.width = 100, .max_rows = 9}, 0,
                   "a?[2J?b   st?ep" /* 71 blanks */
                   "                                                            "
                   "           w?]0;x?\n"
                   "12 of 60 done, 1 running  0s\n");
}

static void before_the_first(void **state)
{
    (void)state;
    SCOPED(progress) struct progress *p = progress_new(0);
    assert_renders(p, (struct progress_view){.width = 40, .max_rows = 9}, 3000,
                   "looking for VMs  3s\n");
}

static void ends(void **state)
{
    (void)state;
    SCOPED(progress) struct progress *p = make_sample();
    for (size_t i = 0; i < ARRAY_LEN(sample); i++)
        end(p, sample[i].id, i ? "succeeded" : "failed");
    end(p, "never heard of", "succeeded");
    assert_renders(p, (struct progress_view){.width = 60, .max_rows = 9}, 3000,
                   "12 of 60 done, 1 failed  3s\n");
}

/* Which VMs are meant is asked first: that is not counted. */
static void listings_do_not_count(void **state)
{
    (void)state;
    char task[] = "t", kind[] = "inventory", running[] = "running", good[] = "succeeded";
    SCOPED(progress) struct progress *p = progress_new(0);
    assert_false(progress_update(
        p, &(struct wire_progress){.task = task, .kind = kind, .state = running}, 0));
    progress_end(p, &(struct wire_outcome){.task = task, .kind = kind, .status = good});
    assert_renders(p, (struct progress_view){.width = 40, .max_rows = 9}, 0,
                   "looking for VMs  0s\n");
}

static void changes(void **state)
{
    (void)state;
    SCOPED(progress) struct progress *p = progress_new(0);
    struct task t = sample[0];
    assert_true(update(p, &t, 0));
    assert_false(update(p, &t, 0));
    t.done += MIB;
    assert_false(update(p, &t, 0)); /* a percent is no change */
    t.step = "merge";
    assert_true(update(p, &t, 0));
    t.worker = "px9";
    assert_true(update(p, &t, 0));
    t.attempt = 2;
    assert_true(update(p, &t, 0));
    t.state = "waiting";
    t.step = t.worker = NULL;
    assert_true(update(p, &t, 0));
    assert_false(update(p, &t, 0));
}

/* A task that waits for its next attempt says why, and how long; first attempts that wait do not.
 */
static void waiting_for_another_attempt(void **state)
{
    (void)state;
    SCOPED(progress) struct progress *p = make_sample();
    char task[] = "6", kind[] = "backup", name[] = "web9", waiting[] = "waiting";
    char code[] = "engine-busy", soon[] = "soon", why[] = "snapshot: the VM is locked";
    struct wire_error error = {.code = code, .retry = soon, .message = why};
    struct wire_progress m = {.task = task,
                              .kind = kind,
                              .vm_name = name,
                              .state = waiting,
                              .attempt = 3,
                              .wait_ms = 30000,
                              .attempts_max = 5,
                              .error = &error};
    end(p, "1", "succeeded");
    end(p, "2", "succeeded");
    end(p, "3", "succeeded");
    assert_true(progress_update(p, &m, 1000));
    assert_false(progress_update(p, &m, 1000));
    const struct progress_view view = {.width = 100, .max_rows = 20};
    assert_renders(p, view, 11000,
                   "web9      waits 20s after: snapshot: the VM is locked, attempt 3 of 5\n"
                   "and 2 waiting\n"
                   "12 of 60 done  11s\n");
    assert_renders(
        p, view, 41000,
        "web9      waits for a worker after: snapshot: the VM is locked, attempt 3 of 5\n"
        "and 2 waiting\n"
        "12 of 60 done  41s\n");
    SCOPED_BUF struct buf out;
    buf_init(&out, 1024);
    progress_render_change(&m, true, &out);
    assert_string_equal(buf_str(&out),
                        "web9: waits 30s after: snapshot: the VM is locked, attempt 3 of 5\n");
}

/* Status items have no rate: it is measured. */
static void rate_is_measured(void **state)
{
    (void)state;
    SCOPED(progress) struct progress *p = progress_new(0);
    struct task t = {"1", "web1", "running", "copy", NULL, 1, 0, 1000 * MIB, 0};
    update(p, &t, 1000);
    t.done = 100 * MIB;
    update(p, &t, 3000);
    assert_renders(p, (struct progress_view){.width = 70, .max_rows = 9}, 3000,
                   "web1      copy       #------------   10%    50.0 MiB/s     18s left\n"
                   "12 of 60 done, 1 running  50.0 MiB/s  3s\n");
}

static void change_lines(void **state)
{
    (void)state;
    char task[] = "t", kind[] = "backup", name[] = "web\a1", waiting[] = "waiting";
    char running[] = "running", step[] = "copy", worker[] = "px1";
    struct wire_progress m = {.task = task, .kind = kind, .vm_name = name, .state = waiting};
    SCOPED_BUF struct buf out;
    buf_init(&out, 1024);
    progress_render_change(&m, true, &out);
    m.state = running;
    m.step = step;
    m.worker = worker;
    m.attempt = 2;
    progress_render_change(&m, true, &out);
    assert_string_equal(buf_str(&out), "web?1: waiting\nweb?1: copy on px1 (attempt 2)\n");
}

static void painter(void **state)
{
    (void)state;
    struct live l = {0};
    SCOPED_BUF struct buf out;
    buf_init(&out, 1024);
    live_paint(&l, "", &out);
    assert_string_equal(buf_str(&out), "");
    live_paint(&l, "a\nb\n", &out);
    assert_string_equal(buf_str(&out), "a\033[K\nb\033[K\n");
    assert_int_equal(l.rows, 2);
    buf_reset(&out);
    live_paint(&l, "c\n", &out);
    assert_string_equal(buf_str(&out), "\r\033[2Ac\033[K\n\033[J");
    buf_reset(&out);
    live_paint(&l, "", &out);
    assert_string_equal(buf_str(&out), "\r\033[1A\033[J");
    assert_int_equal(l.rows, 0);
}

int main(void)
{
    if (!setlocale(LC_CTYPE, "C.UTF-8"))
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(at_widths),
        cmocka_unit_test(never_wider_than_the_terminal),
        cmocka_unit_test(narrow),
        cmocka_unit_test(few_rows),
        cmocka_unit_test(many_machines),
        cmocka_unit_test(with_colors),
        cmocka_unit_test(names_are_made_safe),
        cmocka_unit_test(before_the_first),
        cmocka_unit_test(ends),
        cmocka_unit_test(listings_do_not_count),
        cmocka_unit_test(changes),
        cmocka_unit_test(waiting_for_another_attempt),
        cmocka_unit_test(rate_is_measured),
        cmocka_unit_test(change_lines),
        cmocka_unit_test(painter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
