/* A module with a type of its own: a key that holds one number. Just enough to see what becomes of such keys. */
#include <stdint.h>
#include <stdlib.h>

typedef struct { uint64_t version; void *rdb_load, *rdb_save, *aof_rewrite, *mem_usage, *digest, *free; } Methods;

static int (*GetApi)(const char *, void *);
static void (*SetModuleAttribs)(void *, const char *, int, int);
static void *(*CreateDataType)(void *, const char *, int, Methods *);
static int (*CreateCommand)(void *, const char *, void *, const char *, int, int, int);
static void *(*OpenKey)(void *, void *, int);
static void (*CloseKey)(void *);
static int (*SetValue)(void *, void *, void *);
static int (*ToLongLong)(void *, long long *);
static int (*ReplyWithLongLong)(void *, long long);
static void (*SaveSigned)(void *, int64_t);
static int64_t (*LoadSigned)(void *);
static void (*DigestAddLongLong)(void *, long long);
static int (*ReplicateVerbatim)(void *);
static void *type;

static void *load(void *rdb, int version) { int64_t *value = malloc(8); (void)version; *value = LoadSigned(rdb); return value; }
static void save(void *rdb, void *value) { SaveSigned(rdb, *(int64_t *)value); }
static void digest(void *to, void *value) { DigestAddLongLong(to, *(int64_t *)value); }

static int set(void *ctx, void **argv, int argc) {
    int64_t *value = malloc(8);
    long long given = 0;
    void *key = OpenKey(ctx, argv[1], 2);
    if (argc > 2) ToLongLong(argv[2], &given);
    *value = given;
    SetValue(key, type, value);
    CloseKey(key);
    ReplicateVerbatim(ctx);
    return ReplyWithLongLong(ctx, given);
}

int RedisModule_OnLoad(void *ctx, void **argv, int argc) {
    static Methods methods = {1, load, save, 0, 0, digest, free};
    (void)argv; (void)argc;
    GetApi = ((void **)ctx)[0];
    GetApi("RedisModule_SetModuleAttribs", &SetModuleAttribs);
    GetApi("RedisModule_CreateDataType", &CreateDataType);
    GetApi("RedisModule_CreateCommand", &CreateCommand);
    GetApi("RedisModule_OpenKey", &OpenKey);
    GetApi("RedisModule_CloseKey", &CloseKey);
    GetApi("RedisModule_ModuleTypeSetValue", &SetValue);
    GetApi("RedisModule_StringToLongLong", &ToLongLong);
    GetApi("RedisModule_ReplyWithLongLong", &ReplyWithLongLong);
    GetApi("RedisModule_SaveSigned", &SaveSigned);
    GetApi("RedisModule_LoadSigned", &LoadSigned);
    GetApi("RedisModule_DigestAddLongLong", &DigestAddLongLong);
    GetApi("RedisModule_ReplicateVerbatim", &ReplicateVerbatim);
    SetModuleAttribs(ctx, "counter", 1, 1);
    type = CreateDataType(ctx, "countr-lg", 0, &methods);
    return CreateCommand(ctx, "counter.set", set, "write", 1, 1, 1);
}
