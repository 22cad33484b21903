/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/crew.h"

#include <pthread.h>
#include <stddef.h>
#include <unistd.h>

enum { CREW_DEFAULT_MAX = 8 };

struct crew {
    void (*work)(void *context);
    void *context;
};

static void *member_main(void *arg)
{
    const struct crew *crew = arg;
    crew->work(crew->context);
    return NULL;
}

unsigned crew_size(unsigned asked)
{
    if (asked == 0) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        asked = cores < 1 ? 1 : (unsigned)(cores < CREW_DEFAULT_MAX ? cores : CREW_DEFAULT_MAX);
    }
    return asked < CREW_MAX ? asked : CREW_MAX;
}

void crew_run(unsigned threads, void (*work)(void *context), void *context)
{
    struct crew crew = {.work = work, .context = context};
    pthread_t others[CREW_MAX - 1];
    unsigned n = 0;
    while (n + 1 < threads && n + 1 < CREW_MAX &&
           pthread_create(&others[n], NULL, member_main, &crew) == 0)
        n++;
    work(context);
    for (unsigned i = 0; i < n; i++)
        pthread_join(others[i], NULL);
}
