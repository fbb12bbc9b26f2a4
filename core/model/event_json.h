/*
 * An event as JSON between our own parts (messages): short names, enums by word, all of
 * it, unlike the record of event_record that users see.
 */
#ifndef PRATAI_EVENT_JSON_H
#define PRATAI_EVENT_JSON_H

struct err;
struct event;
struct json;

/* Members that are zero are left out. */
struct json *event_encode(const struct event *ev);

/* *ev is filled (owned strings and all), or cleared and -1: ERR_INPUT names the member. */
int event_decode(const struct json *j, struct event *ev, struct err *e);

#endif
