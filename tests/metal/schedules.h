/* Groups of the program of this folder. */
#ifndef LIK_TESTS_METAL_SCHEDULES_H
#define LIK_TESTS_METAL_SCHEDULES_H

/* Bits over schedules. */
void check_schedules(void);
/* Offsets and list entries that are out of range, which nobody checks before a kernel does, and
 * addresses that need 64 bits. */
void check_bounds(void);

#endif
