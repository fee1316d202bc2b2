# The CUDA backend: compiled where nvcc and a GPU are found (LIK_CUDA=AUTO), required with LIK_CUDA=ON. nvcc may
# stand on PATH, in CUDA_HOME, or in PyPI's compiler packages (nvidia-cuda-nvcc and friends, found through
# python3). The runtime is linked statically and finds the driver when it is first used, so that the library loads
# on machines without a GPU.
if(LIK_CUDA STREQUAL "OFF")
    return()
endif()
set(LIK_CUDA_ALL 75-real 80-real 86-real 89-real 90a-real 100a-real 120)
if(NOT "$ENV{LIK_CUDA_ARCHS}" STREQUAL "")
    set(LIK_CUDA_ARCHS_DEFAULT $ENV{LIK_CUDA_ARCHS})
else()
    set(LIK_CUDA_ARCHS_DEFAULT native)
endif()
set(LIK_CUDA_ARCHS "${LIK_CUDA_ARCHS_DEFAULT}" CACHE STRING
    "GPUs the CUDA backend is compiled for: native (those of this machine), all, or as CMAKE_CUDA_ARCHITECTURES")

# The architectures of the GPUs that the driver names, in `found`; none older than 7.5. CMake's own native would name
# Hopper without its wgmma.
function(lik_find_gpus found)
    execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader TIMEOUT 60
                    RESULT_VARIABLE failed OUTPUT_VARIABLE text ERROR_QUIET)
    set(archs)
    if(failed STREQUAL "0")
        string(REGEX MATCHALL "[0-9]+\\.[0-9]" capabilities "${text}")
        foreach(capability ${capabilities})
            string(REPLACE "." "" number ${capability})
            set(known ${LIK_CUDA_ALL})
            list(FILTER known INCLUDE REGEX "^${number}a?(-real)?$")
            if(known)
                list(APPEND archs ${known})
            elseif(number GREATER 75)
                list(APPEND archs ${number}-real)
            else()
                message(STATUS "CUDA backend: a GPU of compute capability ${capability} is too old, 7.5 is needed")
            endif()
        endforeach()
        list(REMOVE_DUPLICATES archs)
    endif()
    set(${found} ${archs} PARENT_SCOPE)
endfunction()

if(NOT CMAKE_CUDA_COMPILER)
    find_program(LIK_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin /usr/local/cuda/bin)
    if(NOT LIK_NVCC)
        find_program(LIK_PYTHON NAMES python3 python)
        if(LIK_PYTHON)
            execute_process(COMMAND ${LIK_PYTHON} -c "import glob, os, nvidia\nfor p in nvidia.__path__:\n    for f in glob.glob(os.path.join(p, '*', 'bin', 'nvcc')): print(f)"
                            OUTPUT_VARIABLE LIK_NVCC_WHEEL ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
            string(REGEX REPLACE "\n.*" "" LIK_NVCC_WHEEL "${LIK_NVCC_WHEEL}")
            if(LIK_NVCC_WHEEL)
                set(LIK_NVCC ${LIK_NVCC_WHEEL} CACHE FILEPATH "nvcc" FORCE)
            endif()
        endif()
    endif()
    if(NOT LIK_NVCC)
        if(LIK_CUDA STREQUAL "ON")
            message(FATAL_ERROR "LIK_CUDA is ON, but nvcc is not on PATH, in CUDA_HOME or in python3's nvidia packages")
        endif()
        message(STATUS "CUDA backend: no nvcc found, not built")
        return()
    endif()
    set(CMAKE_CUDA_COMPILER ${LIK_NVCC})
endif()

set(CMAKE_CUDA_ARCHITECTURES ${LIK_CUDA_ARCHS})
if(LIK_CUDA_ARCHS STREQUAL "all")
    set(CMAKE_CUDA_ARCHITECTURES ${LIK_CUDA_ALL})
elseif(LIK_CUDA_ARCHS STREQUAL "native")
    lik_find_gpus(CMAKE_CUDA_ARCHITECTURES)
    if(NOT CMAKE_CUDA_ARCHITECTURES AND LIK_CUDA STREQUAL "AUTO")
        message(STATUS "CUDA backend: ${CMAKE_CUDA_COMPILER} is there, but no GPU: not built, this is a build for "
                       "CPUs. LIK_CUDA_ARCHS=all builds it for every GPU (a quarter of an hour), "
                       "LIK_CUDA_ARCHS=90a-real for one")
        return()
    elseif(NOT CMAKE_CUDA_ARCHITECTURES)
        message(STATUS "CUDA backend: no GPU here, so it is built for every one, which takes a quarter of an hour; "
                       "LIK_CUDA_ARCHS=90a-real builds it for one")
        set(CMAKE_CUDA_ARCHITECTURES ${LIK_CUDA_ALL})
    endif()
endif()
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
message(STATUS "CUDA backend: ${CMAKE_CUDA_COMPILER} ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")

file(GLOB LIK_CUDA_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/cuda/*.cu)
add_library(lik_cuda_objects OBJECT ${LIK_CUDA_SOURCES})
set_target_properties(lik_cuda_objects PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_VISIBILITY_PRESET hidden
                                                  POSITION_INDEPENDENT_CODE ON)
target_include_directories(lik_cuda_objects PRIVATE include src)
target_compile_options(lik_cuda_objects PRIVATE --expt-relaxed-constexpr -Xcompiler=-Wall,-Wextra,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics
                       $<$<BOOL:${LIK_WERROR}>:--Werror=all-warnings>)
target_compile_definitions(lik_objects PUBLIC LIK_WITH_CUDA)
target_sources(lik PRIVATE $<TARGET_OBJECTS:lik_cuda_objects>)
set_target_properties(lik PROPERTIES LINKER_LANGUAGE C CUDA_ARCHITECTURES OFF)
get_filename_component(LIK_CUDA_BIN ${CMAKE_CUDA_COMPILER} DIRECTORY)
find_library(LIK_CUDART_STATIC cudart_static HINTS ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES} ${LIK_CUDA_BIN}/../lib64
             ${LIK_CUDA_BIN}/../lib ${LIK_CUDA_BIN}/../../cuda_runtime/lib REQUIRED)
target_link_options(lik PRIVATE -Wl,--as-needed)
target_link_libraries(lik PRIVATE $<BUILD_INTERFACE:${LIK_CUDART_STATIC}> ${CMAKE_DL_LIBS} rt)
