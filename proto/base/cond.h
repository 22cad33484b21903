/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for another thread with a limit: condition variables by the machine's monotonic clock, so
 * that a step of the wall clock lengthens no wait.
 *
 *     struct timespec until = cond_after_ms(limit_ms);
 *     pthread_mutex_lock(&mutex);
 *     while (!done && cond_wait_until(&cond, &mutex, &until))
 *         ;
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* For cond_wait_until(). The caller ends it with pthread_cond_destroy(). */
void cond_init(pthread_cond_t *cond);

/* So many milliseconds from now; 0 or more. */
struct timespec cond_after_ms(int64_t ms);

/* Wait for a signal, with the mutex locked; like all such waits it may end without one. False:
 * the time has come. */
bool cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until);
