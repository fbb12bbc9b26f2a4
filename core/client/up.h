/*
 * `pratai up`: the control plane and a node on this machine, in the foreground.
 */
#ifndef PRATAI_CLIENT_UP_H
#define PRATAI_CLIENT_UP_H

#include "core/base/opt.h"

/* Host ids without a passwd entry, below the ranges of sandboxes. */
#define UP_CONTROL_UID 1878982657u
#define UP_NODE_UID 1878982658u

extern const struct opt up_options[];

#endif
