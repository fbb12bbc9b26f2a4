/*
 * How much a directory takes on its disk, while others write there.
 */
#ifndef PRATAI_BUILD_DISK_USE_H
#define PRATAI_BUILD_DISK_USE_H

#include <stdint.h>

/* Bytes of all that is below dir, each file once for every name; stops counting above max. */
uint64_t disk_use(int dir, uint64_t max);

#endif
