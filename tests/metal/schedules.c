#include "schedules.h"

void check_schedules(void)
{
}
