/* SPDX-License-Identifier: Apache-2.0 */
/* The pure parts of nic.c, for its tests. */
#pragma once

#include "worker/ovirt/nic.h"

/* New reference. `profile_id` NULL = no network; `keep_mac` false = the engine chooses one. */
json_t *ovirt_nic_body(const json_t *saved, const char *profile_id, bool plugged, bool keep_mac);
/* The id of the profile for a saved vnic_profile {id, name, network{name}} among the engine's
 * answers; NULL = none. Borrowed from `profiles`. */
const char *ovirt_nic_find_profile(const json_t *profiles, const json_t *networks,
                                   const json_t *saved, const char *datacenter_id);
