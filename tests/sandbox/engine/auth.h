/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Users, tokens and sessions: the engine's single sign-on as a client of its API sees it. Threads:
 * guarded by the engine's lock.
 */
#pragma once

#include "tests/sandbox/engine/http.h"

struct auth *auth_new(void);
void auth_free(struct auth *a);
void auth_add_user(struct auth *a, const char *name, const char *password);
/* A token dies `life_ms` after it was made (0 = never) and `idle_ms` after its last use. */
void auth_set_life(struct auth *a, int64_t life_ms, int64_t idle_ms);
void auth_set_basic(struct auth *a, bool allowed);
void auth_expire_all(struct auth *a);
/* Tokens that live, for the leak tests. */
size_t auth_token_count(const struct auth *a);

/* Whose token the call carries, alive or not; "" = nobody's. Borrowed until the next call. */
const char *auth_user(const struct auth *a, struct request *r);
/* May this call go on? If not, the 401 is in the request. */
bool auth_check(struct engine *e, struct request *r);
/* POST /ovirt-engine/sso/oauth/token and /ovirt-engine/services/sso-logout; `form` is the body. */
void auth_token(struct engine *e, struct request *r, const char *form);
void auth_logout(struct engine *e, struct request *r, const char *form);
