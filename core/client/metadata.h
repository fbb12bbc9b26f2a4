/*
 * Options of function-create and function-update as the JSON that the control plane
 * takes.  Only form is checked here (a number is a number); what is allowed, the control
 * plane says.
 */
#ifndef PRATAI_CLIENT_METADATA_H
#define PRATAI_CLIENT_METADATA_H

struct err;
struct opt_values;

/* name: NULL for an update.  malloc'd text of an object; NULL: ERR_INPUT names the option. */
char *metadata_make(const struct opt_values *v, const char *name, struct err *e);

/* --env as the member "env".  -1: ERR_INPUT. */
struct json;
int metadata_put_env(struct json *out, const struct opt_values *v, struct err *e);

#endif
