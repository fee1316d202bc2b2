/* Bits over schedules: a group of the program of this folder. */
#ifndef LIK_TESTS_METAL_SCHEDULES_H
#define LIK_TESTS_METAL_SCHEDULES_H

void check_schedules(void);

#endif
