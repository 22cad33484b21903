/* SPDX-License-Identifier: Apache-2.0 */
/* Requests: acceptance, refusal, identity, selection of VMs, replies, doubles. */
#include <string.h>

#include "tests/unit/coordinator/bed.h"

static struct wire_finished *take_finished(struct bed *bed, struct sent *s)
{
    *s = bed_take(bed, WIRE_FINISHED);
    return s->m.as;
}

static void backup_runs_to_its_end(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    assert_int_equal(h.fence, 1);
    bed_step(bed, &h, "copy", "started", NULL);
    bed_result(bed, &h, "succeeded");
    SCOPED_SENT struct sent o = bed_take(bed, WIRE_OUTCOME);
    const struct wire_outcome *outcome = o.m.as;
    assert_string_equal(o.key, "replies");
    assert_string_equal(o.exchange, "");
    assert_string_equal(o.correlation_id, request);
    assert_string_equal(outcome->status, "succeeded");
    assert_string_equal(outcome->vm, "vm-1");
    assert_string_equal(outcome->vm_name, "name-1");
    assert_string_equal(outcome->point, "point-1");
    assert_string_equal(outcome->worker, "w1");
    assert_int_equal(outcome->attempts, 1);
    assert_false(outcome->cleanup_open);
    SCOPED_SENT struct sent f = {0};
    const struct wire_finished *finished = take_finished(bed, &f);
    assert_string_equal(finished->status, "succeeded");
    assert_int_equal(finished->tasks_total, 1);
    assert_int_equal(finished->tasks_succeeded, 1);
    bed_check(bed);
}

static void replies_come_in_order(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    bed_result(bed, &h, "succeeded");
    int rank = 0;
    for (size_t i = 0; i < bed->count; i++) {
        if (strcmp(bed->sent[i].key, "replies") != 0)
            continue;
        int this = bed->sent[i].m.type == WIRE_PROGRESS  ? 1
                   : bed->sent[i].m.type == WIRE_OUTCOME ? 2
                                                         : 3;
        assert_true(this >= rank);
        rank = this;
    }
    assert_int_equal(rank, 3);
}

static void missing_vms_are_told_and_the_others_run(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 4);
    char *names[] = {S("name-1"), S("nobody"), S("not-this"), S("nobody")};
    char *ids[] = {S("VM-1"), S("vm-99")};
    char *exclude[] = {S("not-this")};
    struct wire_select select = {.names = {names, 4}, .ids = {ids, 2}, .exclude = {exclude, 1}};
    const struct wire_backup b = {.select = &select};
    bed_request(bed, WIRE_BACKUP, &b, NULL);
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, "w1");
    bed_inventory(bed, &inventory, 1, 1);
    for (int i = 0; i < 2; i++) {
        SCOPED_SENT struct sent s = bed_take(bed, WIRE_OUTCOME);
        const struct wire_outcome *o = s.m.as;
        assert_string_equal(o->status, "failed");
        assert_string_equal(o->error->code, "not-found");
        assert_int_equal(o->attempts, 0);
        assert_string_equal(i == 0 ? o->vm : o->vm_name, i == 0 ? "vm-99" : "nobody");
    }
    assert_int_equal(bed_count(bed, WIRE_OUTCOME), 0);
    struct hold h = bed_offer(bed);
    bed_claim(bed, &h, "w1");
    bed_result(bed, &h, "succeeded");
    bed_drop_type(bed, WIRE_OUTCOME);
    SCOPED_SENT struct sent f = {0};
    const struct wire_finished *finished = take_finished(bed, &f);
    assert_string_equal(finished->status, "partly");
    assert_int_equal(finished->tasks_total, 3);
    assert_int_equal(finished->tasks_failed, 2);
    bed_check(bed);
}

static void nothing_found_fails(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    bed_backup(bed, NULL, request);
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, "w1");
    bed_inventory(bed, &inventory, 1, 0);
    SCOPED_SENT struct sent f = {0};
    const struct wire_finished *finished = take_finished(bed, &f);
    assert_string_equal(finished->status, "failed");
    assert_string_equal(finished->error->code, "not-found");
    assert_int_equal(finished->tasks_total, 0);
    bed_check(bed);
}

static void every_zone_is_asked_and_a_silent_one_is_named(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", "dc2", NULL);
    char request[ID_BYTES];
    bed_backup(bed, "name-7", request);
    struct hold one = bed_offer(bed), two = bed_offer(bed);
    bed_claim(bed, &one, "w1");
    bed_inventory(bed, &one, 1, 0);
    bed_claim(bed, &two, "w2");
    bed_fail(bed, &two, ERR_ENGINE_AUTH, NULL);
    SCOPED_SENT struct sent zone = bed_take(bed, WIRE_OUTCOME);
    const struct wire_outcome *z = zone.m.as;
    assert_string_equal(z->kind, "inventory");
    assert_string_equal(z->error->code, "engine-auth");
    SCOPED_SENT struct sent vm = bed_take(bed, WIRE_OUTCOME);
    const struct wire_outcome *v = vm.m.as;
    assert_string_equal(v->vm_name, "name-7");
    /* Not "not-found": it may be in the zone that did not answer. */
    assert_string_equal(v->error->code, "engine-auth");
    assert_non_null(strstr(v->error->message, "dc2"));
    SCOPED_SENT struct sent f = {0};
    assert_string_equal(take_finished(bed, &f)->status, "failed");
    bed_check(bed);
}

static void one_vm_in_two_zones_and_two_pages_is_one_task(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", "dc2", NULL);
    bed_presence(bed, "w1", "dc1", 4);
    char request[ID_BYTES];
    bed_backup(bed, NULL, request);
    struct hold one = bed_offer(bed), two = bed_offer(bed);
    bed_claim(bed, &one, "w1");
    bed_inventory(bed, &one, 1, 2);
    bed_claim(bed, &two, "w2");
    bed_inventory(bed, &two, 1, 2);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 2);
    bed_check(bed);
}

static void pages_of_a_lost_attempt_do_not_count(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    bed_backup(bed, NULL, request);
    struct hold h = bed_offer(bed);
    bed_claim(bed, &h, "w1");
    struct wire_vm_item vm = {.id = S("vm-50"), .name = S("old")};
    struct wire_item_list list = {.vms = &vm, .vms_count = 1};
    const struct wire_items items = {.task = h.task,
                                     .worker = h.worker,
                                     .attempt = 1,
                                     .fence = h.fence,
                                     .page = 1,
                                     .items = &list};
    bed_event(bed, WIRE_ITEMS, &items, NULL);
    bed_wait(bed, 121 * 1000);
    struct hold again = bed_offer(bed);
    assert_int_equal(again.attempt, 2);
    bed_claim(bed, &again, "w2");
    bed_event(bed, WIRE_ITEMS, &items, NULL); /* late, from the first worker */
    bed_inventory(bed, &again, 1, 1);
    struct hold backup = bed_offer(bed);
    assert_string_equal(backup.vm, "vm-1");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_check(bed);
}

/* Pages that are late, or were refused: the listing is made anew, and given up in the end. */
static void half_a_listing_is_none(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    bed_backup(bed, NULL, request);
    for (int i = 1; i <= bed->conf.max_attempts; i++) {
        assert_int_equal(bed_count(bed, WIRE_OUTCOME), 0);
        bed_wait(bed, 600 * 1000);
        bed_presence(bed, "w1", "dc1", 4);
        struct hold h = bed_offer(bed);
        assert_int_equal(h.attempt, i);
        bed_claim(bed, &h, "w1");
        const struct wire_result r = {.task = h.task,
                                      .worker = h.worker,
                                      .attempt = h.attempt,
                                      .fence = h.fence,
                                      .status = S("succeeded"),
                                      .pages = 2};
        bed_event(bed, WIRE_RESULT, &r, NULL);
    }
    SCOPED_SENT struct sent o = bed_take(bed, WIRE_OUTCOME);
    const struct wire_outcome *outcome = o.m.as;
    assert_string_equal(outcome->status, "failed");
    assert_string_equal(outcome->error->code, "bad-message");
    bed_check(bed);
}

static void listings_are_relayed_in_pages(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", "dc2", NULL);
    const struct wire_inventory ask = {.search = S("cluster=prod")};
    bed_request(bed, WIRE_INVENTORY, &ask, NULL);
    SCOPED_SENT struct sent a = bed_take(bed, WIRE_ACCEPTED);
    const char *request = ((const struct wire_accepted *)a.m.as)->request;
    SCOPED_SENT struct sent offer = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = offer.m.as;
    assert_string_equal(o->select->search, "cluster=prod");
    assert_false(o->select->all);
    assert_string_equal(o->lane, "upkeep");
    struct hold one = {.attempt = 1};
    snprintf(one.task, sizeof one.task, "%s", o->task);
    struct hold two = bed_offer(bed);
    bed_claim(bed, &one, "w1");
    bed_claim(bed, &two, "w2");
    assert_int_equal(bed_count(bed, WIRE_PAGE), 0);
    bed_inventory(bed, &one, 1, 250);
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 0);
    bed_inventory(bed, &two, 500, 1);
    size_t items = 0;
    for (int64_t page = 1; page <= 3; page++) {
        SCOPED_SENT struct sent s = bed_take(bed, WIRE_PAGE);
        const struct wire_page *p = s.m.as;
        assert_string_equal(p->request, request);
        assert_int_equal(p->page, page);
        items += p->items->vms_count;
    }
    assert_int_equal(items, 251);
    SCOPED_SENT struct sent f = {0};
    const struct wire_finished *finished = take_finished(bed, &f);
    assert_int_equal(finished->pages, 3);
    assert_string_equal(finished->status, "succeeded");
    bed_check(bed);
}

static void restore_makes_one_task(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct wire_restore_opts opts = {.point = S("p1"), .name = S("web1-back"), .start = true};
    const struct wire_restore ask = {.options = &opts, .deadline_s = 99};
    bed_request(bed, WIRE_RESTORE, &ask, NULL);
    SCOPED_SENT struct sent offer = bed_take_for(bed, WIRE_OFFER, "oxbow.tasks.dc1.restore");
    const struct wire_offer *o = offer.m.as;
    assert_string_equal(o->kind, "restore");
    assert_string_equal(o->restore->name, "web1-back");
    assert_true(o->restore->start);
    assert_int_equal(o->deadline_s, 99);
    assert_null(o->vm);
}

static void export_is_a_task_for_each_vm(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 4);
    char *names[] = {S("name-1"), S("nobody")};
    struct wire_select select = {.names = {names, 2}};
    struct wire_export_opts opts = {.host = S("host1"), .directory = S("/mnt/ova")};
    const struct wire_export ask = {.select = &select, .options = &opts, .deadline_s = 99};
    bed_request(bed, WIRE_EXPORT, &ask, NULL);
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, "w1");
    bed_inventory(bed, &inventory, 1, 1);
    SCOPED_SENT struct sent missing = bed_take(bed, WIRE_OUTCOME);
    assert_string_equal(((const struct wire_outcome *)missing.m.as)->kind, "export");
    SCOPED_SENT struct sent offer = bed_take_for(bed, WIRE_OFFER, "oxbow.tasks.dc1.backup");
    const struct wire_offer *o = offer.m.as;
    assert_string_equal(o->kind, "export");
    assert_string_equal(o->vm_name, "name-1");
    assert_string_equal(o->export->host, "host1");
    assert_string_equal(o->export->directory, "/mnt/ova");
    assert_null(o->backup);
    assert_int_equal(o->deadline_s, 99);
    bed_check(bed);
}

static void list_asks_the_zone(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", "dc2", NULL);
    const struct wire_list ask = {.zone = S("dc2"), .vm = S("web1")};
    bed_request(bed, WIRE_LIST, &ask, NULL);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 1);
    SCOPED_SENT struct sent offer = bed_take_for(bed, WIRE_OFFER, "oxbow.tasks.dc2.upkeep");
    assert_string_equal(((const struct wire_offer *)offer.m.as)->list->vm, "web1");
}

/* A plan is one task a zone, which is told what only the coordinator knows. */
static void plan_asks_each_zone(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", "dc2", NULL);
    const struct wire_presence p = {.worker = S("w1"),
                                    .zone = S("dc1"),
                                    .state = S("up"),
                                    .proxy = S("proxy1"),
                                    .slots_upkeep = 9};
    bed_event(bed, WIRE_PRESENCE, &p, NULL);
    struct wire_select select = {.all = true};
    struct wire_backup_opts options = {.path = WIRE_PATH_IMAGEIO};
    const struct wire_plan ask = {.select = &select, .options = &options};
    bed_request(bed, WIRE_PLAN, &ask, NULL);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 2);
    SCOPED_SENT struct sent one = bed_take_for(bed, WIRE_OFFER, "oxbow.tasks.dc1.upkeep");
    const struct wire_offer *o = one.m.as;
    assert_string_equal(o->kind, "plan");
    assert_null(o->vm);
    assert_true(o->plan->select->all);
    assert_int_equal(o->plan->options->path, WIRE_PATH_IMAGEIO);
    assert_int_equal(o->proxies.count, 1);
    assert_string_equal(o->proxies.v[0], "proxy1");
    assert_int_equal(o->rates.count, 0);
    SCOPED_SENT struct sent two = bed_take_for(bed, WIRE_OFFER, "oxbow.tasks.dc2.upkeep");
    assert_int_equal(((const struct wire_offer *)two.m.as)->proxies.count, 0);

    struct hold h = {.attempt = 1};
    snprintf(h.task, sizeof h.task, "%s", o->task);
    bed_claim(bed, &h, "w1");
    struct wire_plan_item item = {.id = S("vm-1"), .name = S("web"), .read_bytes = 5};
    struct wire_item_list items = {.plans = &item, .plans_count = 1};
    const struct wire_items page = {.task = h.task,
                                    .worker = h.worker,
                                    .attempt = 1,
                                    .fence = h.fence,
                                    .page = 1,
                                    .items = &items};
    bed_event(bed, WIRE_ITEMS, &page, NULL);
    const struct wire_result r = {.task = h.task,
                                  .worker = h.worker,
                                  .attempt = 1,
                                  .fence = h.fence,
                                  .status = S("succeeded"),
                                  .pages = 1};
    bed_event(bed, WIRE_RESULT, &r, NULL);
    SCOPED_SENT struct sent told = bed_take(bed, WIRE_PAGE);
    const struct wire_page *reply = told.m.as;
    assert_int_equal(reply->items->plans_count, 1);
    assert_string_equal(reply->items->plans[0].name, "web");
    assert_int_equal(reply->items->plans[0].read_bytes, 5);
    const struct wire_plan bad = {.zone = S("dc9"), .select = &select};
    bed_request(bed, WIRE_PLAN, &bad, NULL);
    SCOPED_SENT struct sent refused = bed_take(bed, WIRE_REFUSED);
    bed_check(bed);
}

/* The proxy VM of a worker is backed up only when it is named. */
static void proxies_are_left_out(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    const struct wire_presence p = {.worker = S("w1"),
                                    .zone = S("dc1"),
                                    .state = S("up"),
                                    .proxy = S("name-2"),
                                    .slots_backup = 9,
                                    .slots_upkeep = 9};
    bed_event(bed, WIRE_PRESENCE, &p, NULL);
    const struct wire_presence by_id = {.worker = S("w2"),
                                        .zone = S("dc1"),
                                        .state = S("up"),
                                        .proxy = S("VM-3"),
                                        .slots_backup = 9,
                                        .slots_upkeep = 9};
    bed_event(bed, WIRE_PRESENCE, &by_id, NULL);
    char request[ID_BYTES];
    bed_backup(bed, NULL, request);
    struct hold h = bed_offer(bed);
    bed_claim(bed, &h, "w1");
    bed_inventory(bed, &h, 1, 4);
    struct hold one = bed_offer(bed), four = bed_offer(bed);
    assert_string_equal(one.vm, "vm-1");
    assert_string_equal(four.vm, "vm-4");
    SCOPED_SENT struct sent outcome = bed_take(bed, WIRE_OUTCOME);
    const struct wire_outcome *told = outcome.m.as;
    assert_string_equal(told->kind, "inventory");
    assert_string_equal(told->status, "succeeded");
    assert_int_equal(told->warnings.count, 2);
    assert_string_equal(told->warnings.v[0].code, "vm-excluded");
    assert_non_null(strstr(told->warnings.v[0].message, "name-2"));
    assert_non_null(strstr(told->warnings.v[1].message, "worker w2"));
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    char *names[] = {S("name-2")}, *ids[] = {S("vm-3")};
    struct wire_select select = {.all = true, .names = {names, 1}, .ids = {ids, 1}};
    const struct wire_backup b = {.select = &select};
    bed_request(bed, WIRE_BACKUP, &b, NULL);
    h = bed_offer(bed);
    bed_claim(bed, &h, "w1");
    bed_inventory(bed, &h, 1, 4);
    struct hold two = bed_offer(bed), three = bed_offer(bed); /* the others are busy */
    assert_string_equal(two.vm, "vm-2");
    assert_string_equal(three.vm, "vm-3");
    assert_int_equal(bed_count(bed, WIRE_OUTCOME), 0);
    bed_check(bed);
}

/* --- Refusals --- */
static const char *refusal(struct bed *bed, struct sent *s)
{
    assert_int_equal(bed_count(bed, WIRE_ACCEPTED), 0);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    *s = bed_take(bed, WIRE_REFUSED);
    return ((const struct wire_refused *)s->m.as)->error->code;
}

static void what_cannot_be_done_is_refused(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", "dc2", NULL);
    struct wire_restore_opts opts = {.point = S("p1"), .name = S("x")};
    const struct wire_restore no_zone = {.options = &opts};
    bed_request(bed, WIRE_RESTORE, &no_zone, NULL);
    SCOPED_SENT struct sent a = {0};
    assert_string_equal(refusal(bed, &a), "bad-argument");
    struct wire_select all = {.all = true};
    const struct wire_backup bad_zone = {.select = &all, .zone = S("mars")};
    bed_request(bed, WIRE_BACKUP, &bad_zone, NULL);
    SCOPED_SENT struct sent b = {0};
    assert_string_equal(refusal(bed, &b), "bad-argument");
    char id[ID_BYTES];
    id_new(id);
    const struct wire_cancel unknown = {.request = id};
    bed_request(bed, WIRE_CANCEL, &unknown, NULL);
    SCOPED_SENT struct sent c = {0};
    assert_string_equal(refusal(bed, &c), "not-found");
    const struct wire_status lost = {.request = id};
    bed_request(bed, WIRE_STATUS, &lost, NULL);
    SCOPED_SENT struct sent d = {0};
    assert_string_equal(refusal(bed, &d), "not-found");
}

static void bad_messages_are_buried_and_refused(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    const struct {
        const char *type, *body, *code;
    } cases[] = {
        {"oxbow.backup.v1", "{", "bad-message"},
        {"oxbow.backup.v1", "[]", "bad-message"},
        {"oxbow.backup.v1", "{}", "bad-message"},
        {"oxbow.backup.v1", "{\"select\":{\"all\":\"yes\"}}", "bad-message"},
        {"oxbow.backup.v2", "{\"select\":{\"all\":true}}", "unsupported-version"},
        {"oxbow.nonsense.v1", "{}", "bad-message"},
        {"oxbow.result.v1", "{}", "bad-message"},
        {"text/plain", "hello", "bad-message"},
        {NULL, "{}", "bad-message"},
        {NULL, "", "bad-message"},
        {NULL, "{\"type\":7}", "bad-message"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err why = ERR_INIT;
        const struct bed_props props = {.type = cases[i].type, .reply_to = "r"};
        assert_int_equal(bed_feed(bed, true, &props, cases[i].body, &why), DESK_BURY);
        SCOPED_SENT struct sent s = {0};
        assert_string_equal(refusal(bed, &s), cases[i].code);
        assert_string_equal(err_code_name(why.code), cases[i].code);
    }
    /* No reply_to: buried all the same, nobody is told. */
    struct err why = ERR_INIT;
    assert_int_equal(bed_feed(bed, true, &(struct bed_props){.type = "oxbow.backup.v1"}, "{", &why),
                     DESK_BURY);
    assert_int_equal(bed->count, 0);
    /* A request on the events' queue, and an event that makes no sense. */
    err_clear(&why);
    assert_int_equal(bed_feed(bed, false, &(struct bed_props){.type = "oxbow.backup.v1"},
                              "{\"select\":{\"all\":true}}", &why),
                     DESK_BURY);
    err_clear(&why);
    assert_int_equal(
        bed_feed(bed, false, &(struct bed_props){.type = "oxbow.claim.v1"}, "{\"task\":1}", &why),
        DESK_BURY);
    assert_int_equal(bed->count, 0);
    /* And life goes on. */
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
}

static void a_huge_body_is_refused(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    SCOPED_FREE char *body = xmalloc(WIRE_BODY_MAX_BYTES + 2);
    memset(body, ' ', WIRE_BODY_MAX_BYTES + 1);
    body[WIRE_BODY_MAX_BYTES + 1] = '\0';
    struct err why = ERR_INIT;
    const struct bed_props props = {.type = "oxbow.backup.v1", .reply_to = "r"};
    assert_int_equal(bed_feed(bed, true, &props, body, &why), DESK_BURY);
    SCOPED_SENT struct sent s = {0};
    assert_string_equal(refusal(bed, &s), "too-large");
}

static void type_may_stand_in_the_body(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct err why = ERR_INIT;
    assert_int_equal(bed_feed(bed, true, &(struct bed_props){.reply_to = "r"},
                              "{\"type\":\"oxbow.backup.v1\",\"select\":{\"all\":true}}", &why),
                     DESK_DONE);
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_ACCEPTED);
    const char *request = ((const struct wire_accepted *)s.m.as)->request;
    /* Nobody gave an id: the request's own is the correlation id of the replies. */
    assert_true(id_is_valid(request));
    assert_string_equal(s.correlation_id, request);
}

/* --- Identity --- */
static void accepted_id(struct bed *bed, const struct bed_props *props, char *ret)
{
    struct wire_select all = {.all = true};
    const struct wire_backup b = {.select = &all};
    bed_request(bed, WIRE_BACKUP, &b, props);
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_ACCEPTED);
    snprintf(ret, ID_BYTES, "%s", ((const struct wire_accepted *)s.m.as)->request);
}

static void the_id_is_the_correlation_id_or_the_message_id(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    const char *one = "11111111-1111-4111-8111-11111111111a";
    const char *two = "22222222-2222-4222-8222-222222222222";
    char id[ID_BYTES];
    accepted_id(bed, &(struct bed_props){.correlation_id = "job 7", .message_id = two}, id);
    assert_string_equal(id, two);
    accepted_id(bed, &(struct bed_props){.correlation_id = one, .message_id = "m2"}, id);
    assert_string_equal(id, one);
    accepted_id(bed, &(struct bed_props){.correlation_id = "job 8", .message_id = "m3"}, id);
    assert_true(id_is_valid(id));
    /* Taken by the first: another request gets one of its own. */
    accepted_id(bed, &(struct bed_props){.correlation_id = one, .message_id = "m4"}, id);
    assert_string_not_equal(id, one);
    /* Upper case means the same. */
    accepted_id(bed, &(struct bed_props){.correlation_id = "AAAAAAAA-1111-4111-8111-11111111111A"},
                id);
    assert_string_equal(id, "aaaaaaaa-1111-4111-8111-11111111111a");
}

static void the_same_message_again_does_nothing(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct wire_select all = {.all = true};
    const struct wire_backup b = {.select = &all};
    const struct bed_props props = {.message_id = "m1", .correlation_id = "c1"};
    bed_request(bed, WIRE_BACKUP, &b, &props);
    bed_drop(bed);
    bed_request(bed, WIRE_BACKUP, &b, &props);
    assert_int_equal(bed->count, 0);
    bed_restart(bed);
    bed_request(bed, WIRE_BACKUP, &b, &props);
    assert_int_equal(bed->count, 0);
    /* Without a message id the correlation id and the body tell. */
    const struct bed_props plain = {.correlation_id = "33333333-3333-4333-8333-333333333333"};
    bed_request(bed, WIRE_BACKUP, &b, &plain);
    bed_drop(bed);
    bed_request(bed, WIRE_BACKUP, &b, &plain);
    assert_int_equal(bed->count, 0);
}

static void the_same_message_from_another_queue_joins(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct wire_select all = {.all = true};
    const struct wire_backup b = {.select = &all};
    bed_request(bed, WIRE_BACKUP, &b, &(struct bed_props){.message_id = "m1", .reply_to = "q1"});
    bed_drop(bed);
    bed_request(bed, WIRE_BACKUP, &b, &(struct bed_props){.message_id = "m1", .reply_to = "q2"});
    SCOPED_SENT struct sent s = bed_take_for(bed, WIRE_ACCEPTED, "q2");
    assert_true(((const struct wire_accepted *)s.m.as)->duplicate);
    assert_int_equal(bed->count, 0);
}

/* A client that reconnects asks again from its new reply queue. Pages are not kept, so a listing
 * whose pages were sent is made anew. */
static void a_listing_asked_for_again_is_made_anew(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    const struct wire_inventory ask = {0};
    const struct bed_props first = {.message_id = "m1", .reply_to = "q1"};
    const struct bed_props again = {.message_id = "m1", .reply_to = "q2"};
    bed_request(bed, WIRE_INVENTORY, &ask, &first);
    struct hold h = bed_offer(bed);
    bed_request(bed, WIRE_INVENTORY, &ask, &again); /* no page yet: joins */
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_claim(bed, &h, "w1");
    bed_inventory(bed, &h, 1, 3);
    assert_int_equal(bed_count(bed, WIRE_PAGE), 2);
    bed_drop(bed);
    const struct bed_props late = {.message_id = "m1", .reply_to = "q3"};
    bed_request(bed, WIRE_INVENTORY, &ask, &late);
    h = bed_offer(bed);
    bed_claim(bed, &h, "w1");
    bed_inventory(bed, &h, 1, 3);
    SCOPED_SENT struct sent page = bed_take_for(bed, WIRE_PAGE, "q3");
    SCOPED_SENT struct sent end = bed_take_for(bed, WIRE_FINISHED, "q3");
    assert_int_equal(((const struct wire_finished *)end.m.as)->pages, 1);
    bed_check(bed);
}

static void the_same_key_is_one_job(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 4);
    char *names[] = {S("name-1"), S("name-2")};
    struct wire_select select = {.names = {names, 2}};
    const struct wire_backup b = {.select = &select, .idempotency_key = S("nightly-1")};
    bed_request(bed, WIRE_BACKUP, &b, &(struct bed_props){.message_id = "m1", .reply_to = "q1"});
    SCOPED_SENT struct sent first = bed_take(bed, WIRE_ACCEPTED);
    const char *id = ((const struct wire_accepted *)first.m.as)->request;
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, "w1");
    bed_inventory(bed, &inventory, 1, 2);
    struct hold one = bed_offer(bed), two = bed_offer(bed);
    bed_claim(bed, &one, "w1");
    bed_result(bed, &one, "succeeded");
    bed_drop(bed);
    /* Joins while it runs: told what has ended so far, and what comes. */
    const struct bed_props again = {.message_id = "m2", .reply_to = "q2", .correlation_id = "mine"};
    bed_request(bed, WIRE_BACKUP, &b, &again);
    SCOPED_SENT struct sent dup = bed_take_for(bed, WIRE_ACCEPTED, "q2");
    assert_true(((const struct wire_accepted *)dup.m.as)->duplicate);
    assert_string_equal(((const struct wire_accepted *)dup.m.as)->request, id);
    assert_string_equal(dup.correlation_id, "mine");
    SCOPED_SENT struct sent so_far = bed_take_for(bed, WIRE_OUTCOME, "q2");
    assert_string_equal(((const struct wire_outcome *)so_far.m.as)->vm, "vm-1");
    assert_int_equal(bed->count, 0);
    bed_claim(bed, &two, "w1");
    bed_result(bed, &two, "succeeded");
    for (int i = 0; i < 2; i++) {
        SCOPED_SENT struct sent o = bed_take_for(bed, WIRE_OUTCOME, i ? "q2" : "q1");
        SCOPED_SENT struct sent f = bed_take_for(bed, WIRE_FINISHED, i ? "q2" : "q1");
        assert_string_equal(f.correlation_id, i ? "mine" : id);
    }
    bed_drop(bed);
    /* Joins after its end: all is sent again, to this one only. */
    bed_restart(bed);
    bed_request(bed, WIRE_BACKUP, &b, &(struct bed_props){.message_id = "m3", .reply_to = "q3"});
    assert_int_equal(bed_count(bed, WIRE_ACCEPTED), 1);
    assert_int_equal(bed_count(bed, WIRE_OUTCOME), 2);
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 1);
    assert_int_equal(bed->count, 4);
    SCOPED_SENT struct sent f = bed_take_for(bed, WIRE_FINISHED, "q3");
    assert_string_equal(((const struct wire_finished *)f.m.as)->request, id);
    bed_drop(bed);
    /* The same key of another kind is another job. */
    struct wire_restore_opts opts = {.point = S("p"), .name = S("n")};
    const struct wire_restore r = {.options = &opts, .idempotency_key = S("nightly-1")};
    bed_request(bed, WIRE_RESTORE, &r, NULL);
    SCOPED_SENT struct sent other = bed_take(bed, WIRE_ACCEPTED);
    assert_false(((const struct wire_accepted *)other.m.as)->duplicate);
    bed_check(bed);
}

static void progress_is_told_who_asked_and_not_too_often(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    bed_step(bed, &h, "copy", "started", NULL);
    bed_drop(bed);
    bed_wait(bed, 2000);
    bed_copying(bed, &h, 10, 100);
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_PROGRESS);
    const struct wire_progress *p = s.m.as;
    assert_string_equal(p->request, request);
    assert_string_equal(p->vm_name, "name-1");
    assert_string_equal(p->state, "running");
    assert_string_equal(p->step, "copy");
    assert_string_equal(p->worker, "w1");
    assert_int_equal(p->bytes_done, 10);
    assert_int_equal(p->bytes_total, 100);
    assert_int_equal(p->tasks_total, 1);
    bed_copying(bed, &h, 20, 100);
    assert_int_equal(bed->count, 0);
    bed_wait(bed, 1000);
    bed_copying(bed, &h, 30, 100);
    assert_int_equal(bed_count(bed, WIRE_PROGRESS), 1);
    bed_drop(bed);
    /* From a stranger: nothing. */
    struct hold stranger = h;
    stranger.fence = 99;
    bed_wait(bed, 1000);
    bed_copying(bed, &stranger, 40, 100);
    assert_int_equal(bed->count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backup_runs_to_its_end),
        cmocka_unit_test(replies_come_in_order),
        cmocka_unit_test(missing_vms_are_told_and_the_others_run),
        cmocka_unit_test(nothing_found_fails),
        cmocka_unit_test(every_zone_is_asked_and_a_silent_one_is_named),
        cmocka_unit_test(one_vm_in_two_zones_and_two_pages_is_one_task),
        cmocka_unit_test(pages_of_a_lost_attempt_do_not_count),
        cmocka_unit_test(half_a_listing_is_none),
        cmocka_unit_test(listings_are_relayed_in_pages),
        cmocka_unit_test(restore_makes_one_task),
        cmocka_unit_test(plan_asks_each_zone),
        cmocka_unit_test(export_is_a_task_for_each_vm),
        cmocka_unit_test(list_asks_the_zone),
        cmocka_unit_test(proxies_are_left_out),
        cmocka_unit_test(what_cannot_be_done_is_refused),
        cmocka_unit_test(bad_messages_are_buried_and_refused),
        cmocka_unit_test(a_huge_body_is_refused),
        cmocka_unit_test(type_may_stand_in_the_body),
        cmocka_unit_test(the_id_is_the_correlation_id_or_the_message_id),
        cmocka_unit_test(the_same_message_again_does_nothing),
        cmocka_unit_test(the_same_message_from_another_queue_joins),
        cmocka_unit_test(a_listing_asked_for_again_is_made_anew),
        cmocka_unit_test(the_same_key_is_one_job),
        cmocka_unit_test(progress_is_told_who_asked_and_not_too_often),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
